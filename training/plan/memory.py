"""Memory of one GPU and of its host, part by part, at the peak of a training step.

Estimates err on the side of more: parts that need not meet at the same moment are added up.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.plan.hardware import GPUS_A_NODE
from training.plan.setup import Sharding, Training
from training.plan.shapes import Shape

GIB = 2**30
FRAMEWORK = 1.5 * GIB
"""Assumed of CUDA's context, NCCL's buffers and cuBLAS: not part of what PyTorch reports."""
SLACK = 0.05
"""Assumed share of passing tensors that the allocator cannot use for others."""
HOST_PROCESS = 4 * GIB
"""Assumed of a process on the host: Python, CUDA's libraries, data."""
LAYER_GRADIENTS = 1.5
"""Activations of the one layer in backward, with their gradients, to those activations alone."""
LOGIT_BYTES = 14
"""A logit in bfloat16, in float32, as log-probability, and its gradient in float32."""


@dataclass(frozen=True, slots=True)
class Pass:
    """The largest forward pass of one process."""

    tokens: int
    row: int
    """Length of a row: the longest sequence, or all tokens where they are packed."""
    logit_tokens: int = 0
    """Tokens with logits over the vocabulary; the pointer needs none."""

    @property
    def mask(self) -> int:
        """Places of an attention mask [rows, 1, row, row]."""
        return self.tokens * self.row


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes by part; the total is their sum."""

    gpu: dict[str, float]
    host: dict[str, float]
    """Of the first machine, with its up to eight processes."""

    @property
    def total(self) -> float:
        return sum(self.gpu.values())

    @property
    def host_total(self) -> float:
        return sum(self.host.values())

    @property
    def torch_total(self) -> float:
        """What `torch.cuda.max_memory_reserved` would say."""
        return self.total - self.gpu["framework"]


def estimate(training: Training, sharding: Sharding, size: Pass) -> Memory:
    """Memory at the peak of forward and backward, or of the optimiser's step if that is higher."""
    states = _states(training, sharding)
    passing = _passing(training, size)
    passing["allocator slack"] = SLACK * sum(passing.values())
    # The step comes when activations are gone, and counts where it needs more than they did.
    together = min(training.trained, sharding.step_group or training.trained)
    step = training.step_bytes * together * sharding.share(1)
    step = 0.0 if sharding.offload_optimizer else step
    beyond = max(0.0, step - sum(passing.values()))
    parts = {**states, **passing, "optimiser's step, beyond activations": beyond}
    return Memory({**parts, "framework": FRAMEWORK}, _host(training, sharding))


def _states(training: Training, sharding: Sharding) -> dict[str, float]:
    shape, trained = training.shape, training.trained
    weights = training.frozen_bytes * training.frozen + training.weight_bytes * trained
    gradients = training.gradient_bytes * trained * sharding.share(2)
    optimiser = training.state_bytes * trained * sharding.share(1)
    gathered = 0
    if sharding.stage == 3:
        largest = max(shape.moe_block or shape.expert, shape.table)
        gathered = min(shape.total, max(sharding.live, largest))
    return {
        "weights": 0.0 if sharding.offload_parameters else weights * sharding.share(3),
        "gradients": 0.0 if sharding.offload_optimizer else gradients,
        "optimiser states": 0.0 if sharding.offload_optimizer else optimiser,
        "gathered layers": training.frozen_bytes * gathered,
        "reduction buffers": _buffers(training, sharding),
    }


def _buffers(training: Training, sharding: Sharding) -> float:
    """Where gradients wait to be reduced: DeepSpeed's buckets, or the copies that DDP keeps."""
    if sharding.stage == 0:
        return training.gradient_bytes * training.trained if sharding.gpus > 1 else 0.0
    buckets = training.element * sharding.bucket * sharding.buffers
    if training.lora:
        return buckets
    shape = training.shape
    embeddings = shape.table if training.frozen < shape.table else 0
    largest = max(shape.moe_block or shape.expert, embeddings)
    # A gradient larger than a bucket passes whole; stage 3 copies it to scatter it.
    return buckets + training.gradient_bytes * largest * (2 if sharding.stage == 3 else 1)


def _passing(training: Training, size: Pass) -> dict[str, float]:
    """What comes and goes with a forward pass and its backward."""
    shape = training.shape
    layers = LAYER_GRADIENTS if training.checkpointing else shape.layers + LAYER_GRADIENTS - 1
    folded = shape.moe_block * training.frozen_bytes if training.folded_experts else 0.0
    copies = 2 if training.checkpointing else shape.layers + 1  # one more for its gradient
    masks, scores = _attention(training, size)
    return {
        "hidden states": float(size.tokens * shape.hidden * training.element * (shape.layers + 1)),
        "activations of layers": layers * (size.tokens * layer_bytes(training) + scores),
        "experts with LoRA folded in": folded * copies,
        "attention mask": masks,
        # Cast, sums and padded sums in float32, and as much again for their gradients.
        "means over lines": 24.0 * size.tokens * shape.hidden if training.mean_lines else 0.0,
        "logits": float(size.logit_tokens * shape.vocabulary * LOGIT_BYTES),
    }


def _attention(training: Training, size: Pass) -> tuple[float, float]:
    """Bytes of the mask, and of one layer's scores; flash attention keeps neither."""
    if training.attention == "flash_attention_2":
        return 0.0, 0.0
    # The mask in booleans, and once as numbers to be added.
    mask = float(size.mask * (1 + training.element))
    if training.attention == "sdpa":
        return mask, 0.0
    # Scores, their softmax in float32, and that once more in the model's precision.
    return mask, float(size.mask * training.shape.heads * (2 * training.element + 4))


def layer_bytes(training: Training) -> int:
    """Bytes a token that one layer of transformers' model keeps for backward.

    Counted from its code with grouped expert products: norms keep their input in float32, their
    normalised input and their output.
    """
    shape, element = training.shape, training.element
    norm = 4 + 2 * element
    kept = 2 * norm * shape.hidden
    if shape.qk_norm:
        kept += (4 + element) * (shape.query + shape.key)
    kept += element * (2 * shape.query + 2 * shape.key)  # queries, keys, values, output
    return kept + _mlp_bytes(shape, element)


def _mlp_bytes(shape: Shape, element: int) -> int:
    inner = 4 * shape.intermediate  # gate, its activation, up, their product
    if not shape.experts:
        return element * inner
    # Each expert's share of tokens is copied before and kept after it.
    return element * shape.experts_active * (2 * shape.hidden + inner) + 8 * shape.experts


def _host(training: Training, sharding: Sharding) -> dict[str, float]:
    """Memory of a machine: the checkpoint as it is loaded, and what is offloaded."""
    here = min(sharding.gpus, GPUS_A_NODE)
    share = here / sharding.gpus
    checkpoint = training.frozen_bytes * training.shape.total
    offloaded = 0.0
    if sharding.offload_optimizer:
        # Gradients arrive in float32.
        offloaded += (training.state_bytes + 4) * training.trained * share
    if sharding.offload_parameters:
        both = training.frozen_bytes * training.frozen + training.weight_bytes * training.trained
        offloaded += both * share
    return {
        # Under stage 3 the first process reads it and gives each other its part.
        "checkpoint": checkpoint * (1 if sharding.stage == 3 else here),
        "offloaded": offloaded,
        "processes": float(HOST_PROCESS * here),
    }
