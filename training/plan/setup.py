"""What of a recipe decides memory and speed: what is trained, and how it is cut up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.plan.shapes import Shape
from training.recipe import RecipeError, TrainRecipe

DEEPSPEED = Path("configs/deepspeed")
BUCKET = 500_000_000
"""DeepSpeed's default `reduce_bucket_size`, in elements."""
LIVE = 1_000_000_000
"""DeepSpeed's default `stage3_max_live_parameters`, and its `sub_group_size`."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """How states are cut up between `gpus` data-parallel processes."""

    gpus: int
    stage: int = 0
    """Of ZeRO (arXiv 1910.02054); 0 is plain data parallelism, without DeepSpeed or with."""
    offload_optimizer: bool = False
    offload_parameters: bool = False
    bucket: int = 0
    """Elements of each buffer that gradients are reduced in."""
    buffers: int = 1
    live: int = 0
    """Parameters that ZeRO-3 may hold gathered at a time, where one layer needs no more."""
    step_group: int | None = None
    """Parameters that the optimiser's step takes at a time; None for all."""

    def share(self, stage: int) -> float:
        """Part of what is cut up from ZeRO `stage` on that one GPU keeps."""
        return 1 / self.gpus if self.stage >= stage else 1.0


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained of a model and what each parameter takes, in bytes."""

    shape: Shape
    trained: int
    """Parameters with a gradient, the pointer's included."""
    frozen: int
    adapters: int = 0
    """Of the trained, those of LoRA outside the experts, which every token passes."""
    lora: bool = False
    folded_experts: bool = False
    """LoRA on experts as PEFT does it: folded into a copy of their weights at every pass."""
    frozen_bytes: float = 2.0
    weight_bytes: float = 2.0
    gradient_bytes: float = 2.0
    state_bytes: float = 12.0
    """Moments and master weights of AdamW."""
    step_bytes: float = 8.0
    """What the optimiser's step takes besides: gradients in float32, and one temporary."""
    element: int = 2
    """Bytes of a number within the model."""
    checkpointing: bool = True
    attention: str = "flash_attention_2"
    packed: bool = True
    mean_lines: bool = False
    """Whether the pointer's line states are means, which take sums in float32."""


def read_training(recipe: TrainRecipe, shape: Shape) -> Training:
    """What a recipe trains, as `training.train` does; raises RecipeError."""
    pointer = 2 * (shape.hidden + 1) * recipe.pointer_dim + 1
    head = pointer if recipe.read_out == "pointer" else 0
    adapters = 0
    if recipe.lora is not None:
        adapters = shape.lora(recipe.lora.r, recipe.lora.targets)
        experts = shape.lora_experts(recipe.lora.r) if recipe.lora.experts else 0
        trained = adapters + experts + head
        frozen = shape.total
    else:
        kept = shape.total
        if not recipe.train_embeddings:
            both = recipe.read_out == "pointer" or shape.tied
            kept -= shape.embeddings if both else shape.table
        trained, frozen = kept + head, shape.total - kept
    wide = recipe.dtype == "float32"
    element = 4 if wide else 2
    weight: float = element
    # DeepSpeed keeps a float32 copy of what it trains, whatever that is in.
    states = 12.0 if recipe.deepspeed else 2.0 * element
    if recipe.lora is not None and not recipe.deepspeed:
        weight, states = 4.0, 8.0  # PEFT makes adapters float32
    return Training(
        shape=shape,
        trained=trained,
        frozen=frozen,
        adapters=adapters,
        lora=recipe.lora is not None,
        folded_experts=recipe.lora is not None and recipe.lora.experts,
        frozen_bytes=element,
        weight_bytes=weight,
        gradient_bytes=weight,
        state_bytes=states,
        step_bytes=8.0 if recipe.deepspeed else weight,
        element=element,
        checkpointing=recipe.gradient_checkpointing,
        attention=recipe.attention,
        packed=recipe.packing,
        mean_lines=recipe.read_out == "pointer" and recipe.pointer_lines == "mean",
    )


def read_sharding(recipe: TrainRecipe, gpus: int, folder: Path = DEEPSPEED) -> Sharding:
    """Read stage and offloading from the DeepSpeed JSON that a recipe names; raises RecipeError."""
    if gpus < 1:
        raise RecipeError(f"gpus: {gpus} is no number of GPUs")
    if recipe.deepspeed is None:
        return Sharding(gpus)
    path = Path(recipe.deepspeed)
    path = path if path.suffix == ".json" else folder / f"{recipe.deepspeed}.json"
    try:
        zero: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")).get(
            "zero_optimization", {}
        )
        stage = int(zero.get("stage", 0))
        return Sharding(
            gpus=gpus,
            stage=stage,
            offload_optimizer=_on_host(zero, "offload_optimizer"),
            offload_parameters=stage == 3 and _on_host(zero, "offload_param"),
            # Stage 3's "auto" is the square of the hidden size, which is next to nothing.
            bucket=_number(zero, "reduce_bucket_size", BUCKET),
            buffers=2 if zero.get("overlap_comm") else 1,
            live=_number(zero, "stage3_max_live_parameters", LIVE) if stage == 3 else 0,
            step_group=_number(zero, "sub_group_size", LIVE) if stage == 3 else None,
        )
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError(f"deepspeed: cannot read {path}: {error}") from None


def _on_host(zero: dict[str, Any], name: str) -> bool:
    return bool((zero.get(name) or {}).get("device", "none") != "none")


def _number(zero: dict[str, Any], name: str, default: int) -> int:
    value = zero.get(name, default)
    return 0 if value == "auto" else int(value)
