"""A LoRA adapter merged into weights as they are read; LoRA, arXiv 2106.09685."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from routing.errors import UnsupportedCheckpoint
from serving.engine.tensors import Take

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
A, B, WEIGHT = ".lora_A.weight", ".lora_B.weight", ".weight"
READ = {"r", "lora_alpha", "use_rslora", "target_modules"}
WITHOUT_EFFECT = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "revision"),
    *("ensure_weight_tying", "layers_pattern", "megatron_core", "peft_version", "task_type"),
    "qalora_group_size",
}
"""Of what PEFT says of an adapter, what does not change its weights when it is merged."""
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # Other ways to begin change the base as well.
    "init_lora_weights": (True, False, "gaussian"),
}
"""What must be one of these; whatever is not named here must be empty, or PEFT merges it."""


class LoraAdapter:
    """W + scale * B A of the layers that the adapter has; others as they are.

    `fits` says which adapters it can be made of. Raises UnsupportedCheckpoint for a file that
    cannot be read.
    """

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether the adapter in the folder is plain LoRA."""
        try:
            config = json.loads((folder / CONFIG_FILE).read_text())
            targets = config["target_modules"]
        except (OSError, ValueError, KeyError, TypeError):
            return False  # PEFT says what is wrong
        rest = config.keys() - READ - WITHOUT_EFFECT - PLAIN.keys()
        return (
            all(config.get(name, some[0]) in some for name, some in PLAIN.items())
            and not any(config[name] for name in rest)
            and isinstance(targets, list)
            and {"r", "lora_alpha"} <= config.keys()
            and not {"embed_tokens", "lm_head"} & {*targets}
        )

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        config = json.loads((folder / CONFIG_FILE).read_text())
        self._targets: list[str] = config["target_modules"]
        rank, alpha = config["r"], config["lora_alpha"]
        self._scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        try:
            with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
                self._stored = {
                    name.removeprefix(PREFIX): file.get_tensor(name)
                    for name in file.keys()  # noqa: SIM118
                }
        except (OSError, SafetensorError) as error:
            raise UnsupportedCheckpoint(
                f"cannot put the adapter of {folder} on its base: {error}"
            ) from None

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise UnsupportedCheckpoint unless it is made for a model of such linear layers.

        A layer is adapted if its name ends with one that the configuration targets, as PEFT has it.
        """
        expected = {
            part
            for name, shape in shapes.items()
            if len(shape) == 2 and self._targeted(name.removesuffix(WEIGHT))
            for part in (name.removesuffix(WEIGHT) + A, name.removesuffix(WEIGHT) + B)
        }
        odd = sorted(expected ^ self._stored.keys())
        if odd:
            raise UnsupportedCheckpoint(
                f"the adapter of {self._folder} does not fit its base: {len(odd)} weights without "
                f"counterpart, {odd[0]} among them"
            )
        for name in self._modules():
            a, b = self._stored[name + A].shape, self._stored[name + B].shape
            if (b[0], a[1]) != shapes[name + WEIGHT] or b[1] != a[0]:
                raise UnsupportedCheckpoint(
                    f"the adapter of {self._folder} does not fit its base: {name} is "
                    f"{shapes[name + WEIGHT]}, its parts are {tuple(b)} and {tuple(a)}"
                )

    def over(self, take: Take, prefix: str = "") -> Take:
        """`take` with the adapter merged; `prefix` stands before its names in the adapter."""

        def merged(name: str) -> Any:
            weight = take(name)
            module = prefix + name.removesuffix(WEIGHT)
            if module + A not in self._stored:
                return weight
            # Half precision is cast up first, so the merge is in float32.
            a, b = (self._stored[module + part].to(torch.float32) for part in (A, B))
            found = torch.addmm(weight, b, a, alpha=self._scale)
            if not torch.isfinite(found).all():
                raise UnsupportedCheckpoint(
                    f"cannot put the adapter of {self._folder} on its base: {module} is not finite"
                )
            return found

        return merged

    def _targeted(self, module: str) -> bool:
        return any(module == target or module.endswith("." + target) for target in self._targets)

    def _modules(self) -> Collection[str]:
        return {name.removesuffix(A) for name in self._stored if name.endswith(A)}
