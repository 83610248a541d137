"""Typed training recipes: one YAML each, unknown keys refused, every value printed at start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from routing.layout import Budget
from routing.pointer import LineState

Architecture = Literal["llama", "qwen3", "qwen3_moe"]
"""`model_type` of the base models that recipes know."""


class RecipeError(ValueError):
    """A recipe that cannot be read or run; the message names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(_Part):
    """A low-rank adapter (arXiv 2106.09685)."""

    r: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[int, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: list[str]
    """Names of the linear layers to adapt."""
    experts: bool = False
    """Adapt the fused expert parameters of a mixture of experts as well."""

    @model_validator(mode="after")
    def _experts_take_no_dropout(self) -> Self:
        if self.experts and self.dropout:
            raise ValueError("dropout must be 0 with experts: PEFT cannot drop inside parameters")
        return self


class Encoder(_Part):
    """A sentence encoder whose vectors the pointer reads beside the states; `routing.encoder`.

    With LoRA its layers are adapted where `lora.targets` names them, else it stays as it is.
    """

    name: str
    """A folder, or a name that `routing.encoder` knows."""
    max_tokens: Annotated[int, Field(ge=16)] = 96
    """Of one text; longer ones keep head and tail."""


class Tiny(_Part):
    """A random model of the recipe's architecture in place of its base: the tiny twin."""

    layers: Annotated[int, Field(gt=0)] = 2
    hidden: Annotated[int, Field(gt=0)] = 64
    experts: Annotated[int, Field(gt=1)] = 4
    seed: int = 0


class Redraw(_Part):
    """What of a conversation is drawn anew in every epoch."""

    order: bool = True
    """The order of the routes."""
    identifiers: bool = True
    """Which identifier a line carries, for that read-out."""
    wordings: bool = True
    """Names and descriptions, where a record gives further ones."""
    distractors: bool = True
    """Routes that no turn needs, where a record has spare ones."""
    most_routes: Annotated[int, Field(gt=1)] | None = None
    """Curriculum: the most routes offered at first; distractors above it are left out."""
    curriculum_epochs: Annotated[float, Field(gt=0)] = 1.0
    """Epochs over which `most_routes` grows to all."""


class Distillation(_Part):
    """Soft targets of a larger routing model (arXiv 1503.02531), from `pointsman soften`."""

    targets: Path
    """File of distributions, one line a decision."""
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the soft targets in the loss, the labels' is the rest."""
    temperature: Annotated[float, Field(gt=0)] = 1.0


class TrainRecipe(_Part):
    """One training run."""

    name: str
    base_model: str
    """A folder, a base that `pointsman base` provides, or a hub id."""
    revision: str | None = None
    """Commit of a hub id; a hub id without one is refused, since it may change."""
    architecture: Architecture = "llama"
    tiny: Tiny | None = None
    """Set, trains the recipe's tiny twin: same architecture class, few layers, random weights."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    layers: Annotated[int, Field(gt=0)] | None = None
    """Decoder layers to keep, from the first: states in the middle match routes better than the
    last, and every layer left out saves its share of time. Left out, all are kept."""

    read_out: Literal["pointer", "identifier"] = "pointer"
    layout_version: Literal[1, 2] = 1
    """See `routing.layout`."""
    pointer_lines: LineState = "end"
    """What the pointer takes for a line's state; see `routing.pointer`."""
    pointer_dim: Annotated[int, Field(gt=0)] = 256
    encoder: Encoder | None = None
    identifiers: Annotated[int, Field(ge=2)] = 65
    """Identifiers to choose from; one more than the most routes that can be offered."""
    budget: Budget = Budget()

    lora: Lora | None = None
    """Left out, all weights of the kept layers are trained."""
    start_from: Path | None = None
    """A checkpoint of the same shape to go on from, such as a release that is to learn a team's own
    tasks; left out, training starts from the base model."""
    train_embeddings: bool = False
    """Whether training without LoRA changes the token embeddings too: a quarter of a nano."""

    loss: Literal["offered", "vocabulary"] = "offered"
    """Softmax over the offered lines, or, with identifiers, over the whole vocabulary."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target spread evenly over the offered lines."""
    none_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of decisions where nothing fits, against 1 of the others."""
    batch_negatives: Annotated[int, Field(ge=0)] = 0
    """Routes of other conversations of the batch that each decision is trained against as well."""
    router_aux_loss: Annotated[float, Field(ge=0)] = 0.0
    """Coefficient of a mixture's load-balancing loss; transformers' own default is 0.001."""
    distillation: Distillation | None = None

    redraw: Redraw = Redraw()
    epochs: Annotated[float, Field(gt=0)] | None = None
    max_steps: Annotated[int, Field(gt=0)] | None = None
    batch_conversations: Annotated[int, Field(gt=0)] = 8
    """Conversations of one forward pass."""
    accumulation: Annotated[int, Field(gt=0)] = 1
    """Forward passes of one step, over all processes together."""
    packing: bool = False
    """Lay the conversations of a forward pass end to end, without padding."""
    processes: Annotated[int, Field(gt=0)] = 1
    """Data-parallel processes. On a CPU whose cores are shared with others, as many as cores with
    one thread each do twice the work of one process with as many threads."""
    threads: Annotated[int, Field(gt=0)] = 2
    """Of each process, on a CPU."""
    deepspeed: str | None = None
    """Name of a configuration under configs/deepspeed."""
    gradient_checkpointing: bool = False

    learning_rate: Annotated[float, Field(gt=0)]
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of the pointer; left out, `learning_rate`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    save_every: Annotated[int, Field(gt=0)] = 50
    """Steps between trainer states; the last two are kept."""
    log_every: Annotated[int, Field(gt=0)] = 5
    tracking: Literal["none", "wandb"] = "none"
    """wandb runs offline unless WANDB_MODE says otherwise."""
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.accumulation % self.processes:
            raise ValueError("accumulation must be a multiple of processes")
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("exactly one of epochs and max_steps must be given")
        if self.lora is not None and self.architecture == "qwen3_moe":
            if "all-linear" in self.lora.targets:
                raise ValueError(
                    "lora.targets: all-linear would adapt the router of a mixture of experts; "
                    "name the attention's layers, and set lora.experts for the experts"
                )
        elif self.lora is not None and self.lora.experts:
            raise ValueError(f"lora.experts: {self.architecture} has no experts")
        if self.router_aux_loss and self.architecture != "qwen3_moe":
            raise ValueError(f"router_aux_loss: {self.architecture} has no router")
        if self.read_out == "pointer":
            if self.loss == "vocabulary":
                raise ValueError("loss: vocabulary needs the identifier read-out")
        elif self.batch_negatives:
            raise ValueError("batch_negatives: lines of other conversations need the pointer")
        elif self.encoder is not None:
            raise ValueError("encoder: its vectors need the pointer read-out")
        return self

    @property
    def step_conversations(self) -> int:
        """Conversations of one optimiser step."""
        return self.batch_conversations * self.accumulation


def load_recipe(
    path: Path, overrides: Mapping[str, Any] | None = None, layers: Sequence[Path] = ()
) -> TrainRecipe:
    """A recipe from YAML, with the YAML files `layers` and then `overrides` by dotted key on top.

    Raises RecipeError.
    """
    loaded = _read(path)
    for layer in layers:
        _merge(loaded, _read(layer))
    for key, value in (overrides or {}).items():
        *parents, last = key.split(".")
        place = loaded
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{path}: {key}: {parent} has no parts")
            place = inner
        place[last] = value
    try:
        return TrainRecipe.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{path}: {field + ': ' if field else ''}{first['msg']}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read recipe {path}: {error}") from None
    if not isinstance(loaded, dict):
        raise RecipeError(f"{path}: a recipe must be a mapping")
    return loaded


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        inner = below.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            _merge(inner, value)
        else:
            below[key] = value
