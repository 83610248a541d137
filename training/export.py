"""Export a checkpoint as a whole model that transformers and vLLM load, behind gates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open

from routing.decision import Decision
from routing.encoder import find_encoder
from routing.errors import ContractError
from routing.manifest import Manifest, load_manifest
from routing.pointer import POINTER_FILE
from training.card import write_card
from training.checkpoint import (
    files_of,
    load_checkpoint,
    reset_for_serving,
    save_encoder,
    write_index,
)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
AGREEMENT_EXAMPLES = 200
AGREEING_CHOICES = 0.99
"""Least share of decisions with the same choice: two near-equal routes may swap by rounding."""

Dtype = Literal["float32", "bfloat16"]


class ExportRefused(ContractError):
    """An export that a gate does not let pass; the message says which and why."""


@dataclass(frozen=True)
class Agreement:
    """How far two readers of one model agree."""

    reader: str
    decisions: int
    same_choice: float
    """Share of decisions with the same route, or none."""
    largest_difference: float
    """Between two probabilities of one outcome."""


def export(checkpoint: Path, base: Path | None, output: Path, dtype: Dtype = "float32") -> Manifest:
    """Write `output`: merged weights, pointer, tokenizer, template, configurations, manifest, card.

    `base` is the base model's folder, needed for an adapter. Raises ExportRefused where the merged
    weights are the base's own, UnsupportedCheckpoint for what is no checkpoint; `output` appears
    once it is whole.
    """
    if output.exists() and any(output.iterdir()):
        raise ExportRefused(f"{output} is not empty: an export replaces nothing")
    model, manifest = load_checkpoint(checkpoint, base)
    part = output.with_name(output.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if hasattr(model, "pointer"):
        del model.pointer
        shutil.copyfile(checkpoint / POINTER_FILE, part / POINTER_FILE)
    if manifest.encoder is not None:
        encoder = model.encoder
        del model.encoder
        save_encoder(encoder, find_encoder(manifest.encoder.name, checkpoint), part)
    reset_for_serving(model)
    model.to(getattr(torch, dtype)).save_pretrained(part)
    write_index(part)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(part)
    for name in TOKENIZER_FILES:
        found = next((f / name for f in (checkpoint, base) if f and (f / name).is_file()), None)
        if found is not None:
            shutil.copyfile(found, part / name)
    if base is not None:
        _refuse_unchanged(part, base)
    _refuse_training_configuration(part)
    files = files_of(part)
    provenance = {**manifest.provenance, "exported_from": manifest.version, "dtype": dtype}
    exported = manifest.model_copy(
        update={"weights": "merged", "files": files, "provenance": provenance}
    )
    exported.save(part)
    write_card(part)
    if output.exists():
        output.rmdir()
    part.rename(output)
    return load_manifest(output)


def refuse_disagreement(found: Agreement, *, exact: bool = True) -> None:
    """Raise ExportRefused where a reader of the export decides otherwise than training does.

    Half precision moves probabilities a little; then the choices alone must agree.
    """
    if found.same_choice < AGREEING_CHOICES or (exact and found.largest_difference > 0.01):
        raise ExportRefused(
            f"{found.reader} agrees on {found.same_choice:.1%} of {found.decisions} decisions, "
            f"probabilities differ by up to {found.largest_difference:.4f}"
        )


def agreement(
    reader: str, expected: Sequence[Decision], decisions: Iterable[Decision]
) -> Agreement:
    """Compare a reader's decisions with those of training, one by one."""
    same, largest, count = 0, 0.0, 0
    for one, other in zip(expected, decisions, strict=True):
        count += 1
        same += one.route == other.route
        gaps = (abs(one.distribution[k] - other.distribution[k]) for k in one.distribution)
        largest = max(largest, *gaps)
    return Agreement(reader, count, same / count if count else 0.0, largest)


def _refuse_unchanged(folder: Path, base: Path) -> None:
    """The base's own weights under a new name are no export (LLaMA-Factory #9051)."""
    before = {name: file for file in base.glob("*.safetensors") for name in _names(file)}
    for file in sorted(folder.glob("model*.safetensors")):
        for name, weight in _tensors(file):
            origin = before.get(name)
            if origin is None:
                continue
            with safe_open(origin, framework="pt") as opened:
                if not torch.equal(opened.get_tensor(name).to(weight.dtype), weight):
                    return
    raise ExportRefused(f"the merged weights are those of the base {base.name}: nothing was learnt")


def _refuse_training_configuration(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("use_cache") is False or config.get("output_router_logits"):
        raise ExportRefused(f"{folder / 'config.json'} still holds what training set")


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _tensors(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - it is no dictionary
            yield name, opened.get_tensor(name)
