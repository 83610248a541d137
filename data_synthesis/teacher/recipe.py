"""Typed recipes of the teacher: which endpoint, what it is to write, and what that may cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from routing.errors import InvalidRecord

Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Prices(_Part):
    """Money for a million tokens, in the currency of the spend cap."""

    input: Annotated[float, Field(ge=0)]
    """Money for a million tokens of prompts."""
    output: Annotated[float, Field(ge=0)]
    """Money for a million tokens of answers."""


class TurnRange(_Part):
    """User turns of a dialogue, drawn uniformly from `low` to `high`."""

    low: Positive
    """Fewest user turns."""
    high: Positive
    """Most user turns."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise ValueError("high must not be below low")
        return self


class RayPart(_Part):
    """How the work is spread over the machines of a Ray cluster."""

    engine: Literal["http", "vllm"] = "http"
    """http: workers ask the endpoint of the recipe; vllm: they run the models on their GPUs."""
    address: Text | None = None
    """Address of the cluster; a cluster of this machine alone where missing."""
    workers: Positive = 1
    """Workers of a stage: processes that ask, or replicas of the model."""
    sources: dict[str, Text] = {}
    """For vllm: where the weights of a model are, if not at the model's own name."""
    accelerator_type: Text | None = None
    """For vllm: kind of GPU, as Ray names it."""
    engine_kwargs: dict[str, Any] = {}
    """For vllm: arguments of the engine, such as max_model_len or tensor_parallel_size."""


class TeacherRecipe(_Part):
    """What the teacher writes and how it is asked."""

    name: Text
    """Name of the run."""
    licence: Text
    """Licence of what comes out; the terms of the model's provider decide it."""
    seed: int
    """Draws turn counts, tasks in focus and manners of speech."""

    base_url: Text
    """Root of an OpenAI-compatible API, up to and without /chat/completions."""
    model: Text
    """Model that writes, as the endpoint names it."""
    judge_model: Text | None = None
    """Model that judges at the same endpoint; the writing model where missing."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """Environment variable that holds the key; missing for an endpoint that needs none."""

    concurrency: Positive = 8
    """Requests under way at once; on Ray, rows of one batch."""
    attempts: Positive = 3
    """Times that an unreadable answer is asked for, and that a rejected dialogue is written."""
    request_attempts: Positive = 6
    """Times that a request is sent while the endpoint is busy, failing or unreachable."""
    backoff_s: Annotated[float, Field(gt=0)] = 1.0
    """Seconds before the first repetition of a request; doubles from one to the next."""
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds after which a request is given up."""
    max_tokens: Positive = 4096
    """Most tokens of one answer."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.9
    """Temperature of what is written; judgements are asked for at temperature 0."""

    prices: Prices | None = None
    """Prices of the writing model; without them only tokens can be capped."""
    judge_prices: Prices | None = None
    """Prices of the judging model, where it is another one."""
    spend_cap: Annotated[float, Field(gt=0)] | None = None
    """Money after which nothing more is asked for; needs prices."""
    token_cap: Positive | None = None
    """Tokens, of prompts and answers together, after which nothing more is asked for."""

    domains: list[Text] = []
    """Domains of the taxonomy whose tasks are talked about."""
    topics: list[Text] = []
    """Subjects, in a few words, for which the teacher first writes tasks of its own."""
    policies_per_topic: Annotated[int, Field(ge=2, le=20)] = 6
    """Tasks that the teacher writes for a subject of its own."""
    dialogues_per_topic: Count
    """Dialogues for each domain and each topic."""
    turns: TurnRange
    """User turns of a dialogue."""
    edge_cases_per_topic: Count = 0
    """Hard single decisions for each domain and topic: near the border of two tasks, outside all
    of them, and short follow-ups."""
    manners: Annotated[list[Text], Field(min_length=1)] = ["plain and brief"]
    """Ways in which users talk; one is drawn for each dialogue."""
    none_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the dialogues in which one user turn needs no task."""

    ray: RayPart = RayPart()
    """Used only where the run is started on Ray."""

    prompts: Path
    """Folder of the prompt templates, relative to the recipe."""
    taxonomy: Path
    """Folder of the taxonomy, relative to the recipe."""

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https address")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must hold no user, password, query or fragment; see key_variable")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.domains and not self.topics:
            raise ValueError("domains and topics: at least one is needed")
        for field, values in (("domains", self.domains), ("topics", self.topics)):
            if len(set(values)) < len(values):
                raise ValueError(f"{field}: one is named twice")
        if not self.dialogues_per_topic and not self.edge_cases_per_topic:
            raise ValueError("dialogues_per_topic and edge_cases_per_topic: both are 0")
        priced = self.prices and (self.judge_prices or self.judge == self.model)
        if self.spend_cap is not None and not priced:
            raise ValueError("spend_cap needs prices, and judge_prices for another judge_model")
        if self.spend_cap is None and self.token_cap is None:
            raise ValueError("spend_cap or token_cap: one is needed")
        return self

    @property
    def judge(self) -> str:
        """The model that judges."""
        return self.judge_model or self.model

    @property
    def endpoint(self) -> str:
        """Address that requests are posted to."""
        return f"{self.base_url}/chat/completions"

    def prices_of(self, model: str) -> Prices | None:
        """Prices of one of the two models; None where they are unknown."""
        if model != self.model and self.judge_prices is not None:
            return self.judge_prices
        return self.prices if model == self.model else None

    def key(self) -> str | None:
        """The key from the environment; raises InvalidRecord if its variable is not set."""
        return key_from(self.key_variable)


def key_from(variable: str | None) -> str | None:
    """A key from the environment, None without a variable; raises InvalidRecord if it is unset."""
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise InvalidRecord(f"key_variable: {variable} is not set", field="key_variable")
    return value


def load_teacher_recipe(path: Path) -> TeacherRecipe:
    """A recipe from YAML, its folders made absolute; raises InvalidRecord with file and field."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        recipe = TeacherRecipe.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "recipe"
        raise InvalidRecord(f"{path}: {field}: {first['msg']}", field=field) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRecord(f"cannot read recipe {path}: {error}") from None
    base = path.resolve().parent
    return recipe.model_copy(
        update={"prompts": base / recipe.prompts, "taxonomy": base / recipe.taxonomy}
    )
