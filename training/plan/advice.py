"""What a plan says besides its figures: what it assumes, what to look at, what would fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.plan.hardware import GPUS_A_NODE, NODES_GB_S, Gpu
from training.plan.memory import FRAMEWORK, GIB, LAYER_GRADIENTS, SLACK, Pass, estimate
from training.plan.setup import Sharding, Training, read_sharding, read_training
from training.plan.shapes import Shape
from training.plan.speed import HOST_GB_S, RATES, Load, Speed
from training.plan.workload import Workload
from training.recipe import RecipeError, TrainRecipe

LONG_ROW = 8192
"""From this row length on, attention without flash kernels takes a large part of the time."""
LARGE_HOST = 256 * GIB
MEASURED_PASS = 16_384
"""Tokens of a pass in the published runs."""
TRANSFORMERS_V5, PLANNED_V5 = 3075, 4239
"""Tokens a second of one of 8 H100, all weights of Qwen3-30B-A3B by FSDP: measured by NVIDIA (June
2026), and by this arithmetic."""
SUGGESTIONS = 4


def assumptions(
    gpu: Gpu,
    sharding: Sharding,
    speed: Speed,
    workload: Workload | None,
    tokens_per_pass: int | None,
    bandwidth: float | None,
) -> tuple[str, ...]:
    """What the figures rest on, one sentence each."""
    known = RATES[speed.kind]
    given = speed.mfu_assumed != known.share
    rate = f"{speed.mfu_assumed:.1%} of the peak, " + ("as given" if given else known.source)
    found = [
        f"{gpu.name}: {gpu.memory_gib:g} GiB free, {gpu.bf16_tflops:g} TFLOPS in bfloat16 and "
        f"{gpu.fp32_tflops:g} in float32, {gpu.price:.2f} dollars an hour (--memory, --price)",
        f"arithmetic at {rate} (--mfu)",
        f"{FRAMEWORK / GIB:g} GiB for CUDA and NCCL, {SLACK:.0%} of passing tensors lost between "
        f"others, gradients half as large as a layer's activations ({LAYER_GRADIENTS:g} in all)",
    ]
    if sharding.gpus > 1:
        within = bandwidth or gpu.bus_gb_s
        beyond = f", at most {NODES_GB_S:g} beyond {GPUS_A_NODE} GPUs" if not bandwidth else ""
        found.append(
            f"exchange between GPUs at {within:g} GB/s{beyond}, and not hidden behind arithmetic "
            "(--bandwidth)"
        )
    if sharding.offload_optimizer:
        found.append(f"an offloaded AdamW, bound by {HOST_GB_S:g} GB/s of host memory")
    if tokens_per_pass is None:
        length = "the data's longest" if workload and workload.longest else "the budget allows"
        found.append(f"a largest pass full of sequences as long as {length} (--tokens-per-pass)")
    if workload is None:
        found.append("speed in passes as large as that")
    else:
        if workload.assumed:
            found.append(workload.assumed)
        found.append("no padding, and no time for loading, saving and calibration")
    return tuple(found)


def notes(
    recipe: TrainRecipe,
    training: Training,
    sharding: Sharding,
    gpu: Gpu,
    size: Pass,
    load: Load,
    speed: Speed,
) -> tuple[str, ...]:
    """What deserves a look before the run, one sentence each."""
    return (
        *_settings(recipe, training, sharding, size),
        *(_rates(training, gpu, load, speed) if gpu.name != "cpu" else ()),
    )


def _settings(
    recipe: TrainRecipe, training: Training, sharding: Sharding, size: Pass
) -> Iterator[str]:
    if sharding.gpus != recipe.processes:
        yield f"the recipe says processes={recipe.processes}; this is for {sharding.gpus}"
    if recipe.accumulation % sharding.gpus:
        yield f"accumulation={recipe.accumulation} is no multiple of {sharding.gpus} processes"
    if recipe.attention != "flash_attention_2" and size.row >= LONG_ROW:
        yield (
            f"{recipe.attention} attends over rows of {size.row:,} tokens, with a mask between "
            "packed sequences: attention=flash_attention_2 stays within each"
        )
    if recipe.dtype == "bfloat16" and recipe.deepspeed is None and recipe.lora is None:
        yield (
            "bfloat16 without DeepSpeed keeps weights and moments in bfloat16 alone, where small "
            "updates are lost"
        )
    if training.folded_experts and not training.checkpointing:
        yield "LoRA on experts keeps a copy of every layer's experts: gradient_checkpointing=true"
    here = min(sharding.gpus, GPUS_A_NODE)
    if sharding.stage < 3 and training.shape.total * training.frozen_bytes * here >= LARGE_HOST:
        yield f"each of the {here} processes of a machine loads the whole checkpoint for itself"


def _rates(training: Training, gpu: Gpu, load: Load, speed: Speed) -> Iterator[str]:
    if training.element == 4:
        yield (
            f"float32 has {gpu.fp32_tflops:g} TFLOPS of the {gpu.bf16_tflops:g} that "
            "dtype=bfloat16 would have"
        )
    if load.tokens < MEASURED_PASS / 2 and RATES[speed.kind].published:
        yield (
            f"an average pass has {load.tokens:,.0f} tokens; the rate was measured with "
            f"{MEASURED_PASS:,} and will be less: larger batch_conversations helps"
        )
    if speed.exchanging > speed.computing:
        yield (
            f"a pass takes {speed.exchanging:.2f} s of exchange to {speed.computing:.2f} s of "
            "arithmetic: larger batch_conversations helps"
        )
    if training.shape.experts:
        yield (
            f"the rate is that of prime-rl's experts; with transformers 5, {TRANSFORMERS_V5:,} "
            f"tokens/s a GPU were measured where this arithmetic says {PLANNED_V5:,}"
        )


def would_fit(
    recipe: TrainRecipe, shape: Shape, memory: float, gpus: int, size: Pass, deepspeed: Path
) -> tuple[str, ...]:
    """Changes with which a recipe needs no more than `memory` bytes a GPU, the smallest first."""
    found: dict[str, str] = {}
    for single in (True, False):
        for label, updates, number in _changes(recipe, gpus, single=single):
            one_batch = updates.keys() == {"batch_conversations"}
            kind = "batch" if one_batch else updates.get("deepspeed", label)
            changed = recipe.model_copy(update=updates)
            try:
                sharding = read_sharding(changed, number, deepspeed)
            except RecipeError:  # a configuration that is not there is no way out
                continue
            share = changed.batch_conversations / recipe.batch_conversations
            tokens = max(1, round(size.tokens * share))
            smaller = Pass(tokens, min(size.row, tokens), round(size.logit_tokens * share))
            need = estimate(read_training(changed, shape), sharding, smaller)
            if need.total <= memory and kind not in found:
                host = f", host {need.host_total / GIB:.0f}" if sharding.offload_optimizer else ""
                found[kind] = f"{label} ({need.total / GIB:.0f} GiB{host})"
        if found:
            break
    return tuple(found.values())[:SUGGESTIONS]


def _changes(
    recipe: TrainRecipe, gpus: int, *, single: bool
) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Labels, recipe updates and GPUs: one change at a time, or two and three."""
    settings: list[tuple[str, dict[str, Any]]] = []
    if not recipe.gradient_checkpointing:
        settings.append(("gradient_checkpointing=true", {"gradient_checkpointing": True}))
    batch = recipe.batch_conversations
    while batch > 1:
        batch //= 2  # the first that fits is named
        settings.append((f"batch_conversations={batch}", {"batch_conversations": batch}))
    names = ["zero2", "zero3"] if gpus > 1 else []
    zero = [
        (f"deepspeed={name}", {"deepspeed": name})
        for name in (*names, "zero2-offload", "zero3-offload")
        if name != recipe.deepspeed
    ]
    more = [gpus * factor for factor in (2, 4, 8)]
    if single:
        yield from ((label, updates, gpus) for label, updates in (*settings, *zero))
        yield from ((f"{number} GPUs", {}, number) for number in more)
        return
    # The last of each field is its smallest value.
    smallest = {field: label for label, updates in settings for field in updates}
    everything = {field: value for _, updates in settings for field, value in updates.items()}
    both = " and ".join(smallest.values())
    if both:
        yield both, everything, gpus
    for label, updates in zero:
        for number in (gpus, *more):
            name = label if number == gpus else f"{label} on {number} GPUs"
            yield name, updates, number
            if both:
                yield f"{name} with {both}", {**everything, **updates}, number
