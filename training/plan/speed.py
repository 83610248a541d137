"""Arithmetic, exchange and time of a training step, by rates that others have published."""

from __future__ import annotations

from dataclasses import dataclass

from training.plan.hardware import GPUS_A_NODE, NODES_GB_S, Gpu
from training.plan.setup import Sharding, Training


@dataclass(frozen=True, slots=True)
class Rate:
    """Share of the peak that arithmetic reaches."""

    share: float
    source: str
    published: bool = True
    """Then it is the MFU of a run that computes its forward pass twice, which MFU leaves out."""


RATES = {
    "dense, all weights": Rate(0.266, "prime-rl, Qwen3-4B, 8 H100, 16k tokens a pass"),
    "dense, LoRA": Rate(0.212, "prime-rl, Qwen3-4B LoRA r16, 8 H100, 16k tokens a pass"),
    "mixture, all weights": Rate(0.166, "prime-rl, Qwen3-30B-A3B, 8 H200, 16k tokens a pass"),
    "mixture, LoRA": Rate(0.153, "prime-rl, Qwen3-30B-A3B LoRA r16, 8 H100, 16k tokens a pass"),
    "small model": Rate(0.10, "a guess: nobody publishes it for hidden sizes below 1024", False),
    "CPU": Rate(0.45, "a guess, for one core of a shared machine", False),
}
SMALL = 1024
HOST_GB_S = 200.0
"""Assumed memory bandwidth of a host, which AdamW on it is bound by."""
HOST_STEP_BYTES = 28
"""AdamW reads weight, gradient and two moments in float32, and writes all but the gradient."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a step passes through each process."""

    tokens: float
    """Of one pass."""
    row: float
    """Tokens that attention is computed among, before any are masked."""
    sequence: float
    """Tokens of one conversation."""
    passes: int
    """Of one process in a step."""
    logit_share: float = 0.0
    """Tokens with logits, of all."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Times in seconds, rates of one GPU a second."""

    kind: str
    """Which published rate was taken."""
    mfu_assumed: float
    model_flops: float
    """Of a token, forward and backward, within its own sequence."""
    flops: float
    """Of a token, with what is masked afterwards or, with checkpointing, computed again."""
    computing: float
    """Of one pass."""
    exchanging: float
    """Of one pass: weights and gradients between GPUs, and offloaded weights from the host."""
    step_work: float
    """Of one step besides its passes: offloaded optimiser, exchange of new weights."""
    step: float
    tokens_per_second: float
    mfu: float
    """Model FLOPs that come out, as a share of the peak."""


def kind_of(training: Training, gpu: Gpu) -> str:
    """The entry of `RATES` that fits best."""
    if gpu.name == "cpu":
        return "CPU"
    if training.shape.hidden < SMALL:
        return "small model"
    family = "mixture" if training.shape.experts else "dense"
    return f"{family}, {'LoRA' if training.lora else 'all weights'}"


def token_flops(training: Training, load: Load, *, needed: bool = False) -> tuple[float, float]:
    """FLOPs of a token, forward and backward; of those, with `needed`, what is not masked after.

    Two for each weight forward, two for its activation's gradient, two for its own (2001.08361).
    """
    shape = training.shape
    matrices = 2.0 * (shape.active_body + load.logit_share * shape.table)
    # Queries meet all keys of their row, of which only flash attention leaves out the masked.
    flash = needed or training.attention == "flash_attention_2"
    keys = load.sequence / 2 if flash else load.row
    attention = 4.0 * shape.layers * shape.query * keys
    forward = matrices + attention + 2.0 * training.adapters
    backward = matrices + 2 * attention + 4.0 * training.adapters
    if not training.lora:
        backward += matrices
    elif training.folded_experts:  # adapters get their gradient by way of the whole weight's
        backward += 2.0 * shape.active_experts
    return forward, backward


def predict(
    training: Training,
    sharding: Sharding,
    gpu: Gpu,
    load: Load,
    *,
    mfu: float | None = None,
    bandwidth: float | None = None,
) -> Speed:
    """Speed of a step, nothing of its exchange hidden behind arithmetic.

    `mfu` is the share of the peak that this very run is to reach, in place of a published one;
    `bandwidth`, 10^9 bytes a second and GPU, stands for the table's.
    """
    kind = kind_of(training, gpu)
    known = RATES[kind]
    share = known.share if mfu is None else mfu
    peak = (gpu.bf16_tflops if training.element == 2 else gpu.fp32_tflops) * 1e12
    forward, backward = token_flops(training, load)
    flops = forward * (2 if training.checkpointing else 1) + backward
    needed = token_flops(training, load, needed=True)
    model = sum(needed)
    if mfu is not None:
        rate = mfu * peak * flops / model
    elif known.published:
        rate = share * peak * (model + needed[0]) / model
    else:
        rate = share * peak
    computing = load.tokens * flops / rate
    exchanging, once = _exchange(training, sharding, gpu, bandwidth)
    step_work = once + _offloaded_step(training, sharding, gpu)
    step = load.passes * (computing + exchanging) + step_work
    tokens = load.passes * load.tokens / step
    return Speed(
        kind=kind,
        mfu_assumed=share,
        model_flops=model,
        flops=flops,
        computing=computing,
        exchanging=exchanging,
        step_work=step_work,
        step=step,
        tokens_per_second=tokens,
        mfu=tokens * model / peak,
    )


def _exchange(
    training: Training, sharding: Sharding, gpu: Gpu, bandwidth: float | None
) -> tuple[float, float]:
    """Seconds of exchange in one pass, and once a step."""
    weights = training.frozen_bytes * training.frozen + training.weight_bytes * training.trained
    gathered = training.element * (training.frozen + training.trained)
    gradients = training.gradient_bytes * training.trained
    seconds = 0.0
    if sharding.offload_parameters:  # each GPU brings its part, forward and backward
        seconds += 2 * weights / sharding.gpus / (gpu.host_gb_s * 1e9)
    if sharding.gpus == 1:
        return seconds, 0.0
    rate = bandwidth or gpu.bus_gb_s
    if bandwidth is None and sharding.gpus > GPUS_A_NODE:
        rate = min(rate, NODES_GB_S)
    others = (sharding.gpus - 1) / sharding.gpus / (rate * 1e9)
    if sharding.stage == 3:
        return seconds + (2 * gathered + gradients) * others, 0.0
    if sharding.stage == 2:
        return gradients * others, training.weight_bytes * training.trained * others
    return 0.0, 2 * gradients * others


def _offloaded_step(training: Training, sharding: Sharding, gpu: Gpu) -> float:
    if not sharding.offload_optimizer:
        return 0.0
    here = training.trained * min(sharding.gpus, GPUS_A_NODE) / sharding.gpus
    moved = (training.gradient_bytes + training.weight_bytes) * training.trained / sharding.gpus
    return HOST_STEP_BYTES * here / (HOST_GB_S * 1e9) + moved / (gpu.host_gb_s * 1e9)
