"""A plan: whether a recipe fits, how fast it goes, and what it costs."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.plan.advice import assumptions, notes, would_fit
from training.plan.hardware import Gpu
from training.plan.memory import GIB, Memory, Pass, estimate
from training.plan.setup import DEEPSPEED, Sharding, Training, read_sharding, read_training
from training.plan.shapes import Shape, recipe_shape
from training.plan.speed import Load, Speed, predict
from training.plan.workload import Workload
from training.recipe import RecipeError, TrainRecipe

DECISIONS = 16
"""Decisions that a long conversation has."""
TIGHT = 0.10
"""A margin below this share of the memory is within what the estimate may be off by."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What to expect of a recipe; bytes, seconds, and US dollars."""

    recipe: TrainRecipe
    shape: Shape
    gpu: Gpu
    sharding: Sharding
    training: Training
    size: Pass
    memory: Memory
    speed: Speed
    conversations_a_step: int
    workload: Workload | None
    steps: int | None
    """None where neither the recipe nor a workload says."""
    instead: tuple[str, ...]
    """Changes that would make it fit, where it does not."""
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def available(self) -> float:
        return self.gpu.memory_gib * GIB

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.available

    @property
    def margin(self) -> float:
        """Share of the memory that is left; negative where it does not fit."""
        return 1 - self.memory.total / self.available

    @property
    def verdict(self) -> str:
        if not self.fits:
            return "does not fit"
        return "fits" if self.margin >= TIGHT else "fits, but within the estimate's error"

    @property
    def tokens_per_second(self) -> float:
        return self.speed.tokens_per_second * self.sharding.gpus

    @property
    def decisions_per_second(self) -> float | None:
        if self.workload is None:
            return None
        return self.tokens_per_second * self.workload.decisions / self.workload.tokens

    @property
    def hours(self) -> float | None:
        return None if self.steps is None else self.steps * self.speed.step / 3600

    @property
    def cost(self) -> float | None:
        hours = self.hours
        return None if hours is None else hours * self.sharding.gpus * self.gpu.price

    def to_json(self) -> dict[str, Any]:
        """All figures; memory in GiB, times in seconds unless the name says otherwise."""
        return {
            "recipe": self.recipe.name,
            "base_model": self.recipe.base_model,
            "gpu": asdict(self.gpu),
            "gpus": self.sharding.gpus,
            "zero": asdict(self.sharding),
            "parameters": {
                "total": self.shape.total,
                "active": self.shape.active,
                "experts": self.shape.expert_total,
                "layer": self.shape.layer,
                "trained": self.training.trained,
            },
            "pass": asdict(self.size),
            "memory_gib": _gib(self.memory.gpu),
            "memory_total_gib": round(self.memory.total / GIB, 2),
            "fits": self.fits,
            "margin": round(self.margin, 4),
            "verdict": self.verdict,
            "instead": list(self.instead),
            "host_memory_gib": _gib(self.memory.host),
            "host_memory_total_gib": round(self.memory.host_total / GIB, 2),
            "speed": asdict(self.speed),
            "tokens_per_second": self.tokens_per_second,
            "decisions_per_second": self.decisions_per_second,
            "conversations_a_step": self.conversations_a_step,
            "workload": asdict(self.workload) if self.workload else None,
            "steps": self.steps,
            "hours": self.hours,
            "cost_usd": self.cost,
            "assumptions": list(self.assumptions),
            "notes": list(self.notes),
        }


def plan(
    recipe: TrainRecipe,
    gpu: Gpu,
    gpus: int | None = None,
    *,
    workload: Workload | None = None,
    tokens_per_pass: int | None = None,
    mfu: float | None = None,
    bandwidth: float | None = None,
    base: Path | None = None,
    deepspeed: Path = DEEPSPEED,
) -> Plan:
    """Plan a recipe on `gpus` GPUs, its own number of processes if left out.

    Memory is for the longest pass: `tokens_per_pass`, or `batch_conversations` of the longest
    sequences there may be. Raises RecipeError for what cannot be planned.
    """
    gpus = recipe.processes if gpus is None else gpus
    shape = recipe_shape(recipe, base)
    training = read_training(recipe, shape)
    sharding = read_sharding(recipe, gpus, deepspeed)
    size = largest_pass(recipe, workload.longest if workload else None, tokens_per_pass)
    memory = estimate(training, sharding, size)
    passes = max(1, recipe.accumulation // gpus)
    load = _load(recipe, size, workload, passes)
    speed = predict(training, sharding, gpu, load, mfu=mfu, bandwidth=bandwidth)
    at_once = recipe.batch_conversations * passes * gpus
    instead: tuple[str, ...] = ()
    if memory.total > gpu.memory_gib * GIB:
        instead = would_fit(recipe, shape, gpu.memory_gib * GIB, gpus, size, deepspeed)
    return Plan(
        recipe=recipe,
        shape=shape,
        gpu=gpu,
        sharding=sharding,
        training=training,
        size=size,
        memory=memory,
        speed=speed,
        conversations_a_step=at_once,
        workload=workload,
        steps=_steps(recipe, workload, at_once),
        instead=instead,
        assumptions=assumptions(gpu, sharding, speed, workload, tokens_per_pass, bandwidth),
        notes=notes(recipe, training, sharding, gpu, size, load, speed),
    )


def check(planned: Plan) -> None:
    """Raise RecipeError, with what would fit instead, for a plan that does not fit."""
    if planned.fits:
        return
    instead = ", or ".join(planned.instead) or "nothing that was tried: fewer layers or another GPU"
    raise RecipeError(
        f"{planned.recipe.name} needs {planned.memory.total / GIB:.0f} GiB a GPU of "
        f"{planned.gpu.memory_gib:.0f}; instead: {instead}"
    )


def refuse_what_cannot_fit(
    recipe: TrainRecipe,
    processes: int,
    memory_bytes_per_gpu: int,
    *,
    longest: int | None = None,
    base: Path | None = None,
    deepspeed: Path = DEEPSPEED,
) -> None:
    """Raise RecipeError before a launch that would run out of memory.

    `longest` is the longest sequence of the data, else the recipe's budget stands for it; `base`
    the base model's folder. A model of unknown shape is let through with a warning.
    """
    try:
        recipe_shape(recipe, base)
    except RecipeError as error:
        logger.warning("memory is not checked: %s", error)
        return
    gpu = Gpu("this GPU", memory_bytes_per_gpu / GIB, 1.0, 1.0, 1.0, 1.0, 0.0)
    found = Workload(1, 1, longest, longest) if longest else None
    check(plan(recipe, gpu, processes, workload=found, base=base, deepspeed=deepspeed))


def largest_pass(
    recipe: TrainRecipe, longest: int | None = None, tokens: int | None = None
) -> Pass:
    """The largest pass of a recipe, whose sequences are no longer than `longest` and its budget."""
    if tokens is not None and tokens < 1:
        raise RecipeError(f"tokens-per-pass: {tokens} is no pass")
    longest = min(longest or recipe.budget.max_tokens, recipe.budget.max_tokens)
    tokens = recipe.batch_conversations * longest if tokens is None else tokens
    row = tokens if recipe.packing else min(longest, tokens)
    logits = 0
    if recipe.read_out == "identifier":
        # Each row has logits at the decisions of all rows of its pass.
        rows = 1 if recipe.packing else recipe.batch_conversations
        logits = rows * recipe.batch_conversations * DECISIONS
    return Pass(tokens, row, min(logits, tokens))


def _load(recipe: TrainRecipe, size: Pass, workload: Workload | None, passes: int) -> Load:
    """An average pass; without a workload, one as large as passes get."""
    sequence = float(min(recipe.budget.max_tokens, size.tokens))
    tokens = float(size.tokens)
    if workload is not None:
        sequence = min(sequence, workload.mean)
        tokens = min(tokens, recipe.batch_conversations * sequence)
    return Load(tokens, tokens if recipe.packing else sequence, sequence, passes)


def _steps(recipe: TrainRecipe, workload: Workload | None, at_once: int) -> int | None:
    if recipe.max_steps is not None:
        return recipe.max_steps
    if workload is None:
        return None
    return math.ceil((recipe.epochs or 1.0) * workload.conversations / at_once)


def _gib(parts: dict[str, float]) -> dict[str, float]:
    return {name: round(value / GIB, 3) for name, value in parts.items()}
