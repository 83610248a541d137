"""Whether a model can answer a request, by what is known of both.

What is not known keeps no request away, with one exception: a tag that a model lacks is a promise
that nobody made. Reasons are of two kinds. Facts that the owner states are *hard*: such a model
never gets the request, for tags are a policy on data, and a model that cannot see would answer
without having looked. Token counts are not: the prompt's is estimated here and the limits are often
published figures, so such models are asked last, and a wrong estimate costs an order only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from serving.needs import Need

Reason = Literal[
    "tags", "vision", "audio", "files", "tools", "structured_output", "context", "output"
]
HARD: frozenset[Reason] = frozenset(
    {"tags", "vision", "audio", "files", "tools", "structured_output"}
)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do; None is unknown."""

    context_tokens: int | None = None
    max_output_tokens: int | None = None
    vision: bool | None = None
    audio: bool | None = None
    files: bool | None = None
    tools: bool | None = None
    structured_output: bool | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def why_not(model: Capabilities, need: Need) -> Reason | None:
    """Why a model should not get a request, a hard reason before others; None if it may."""
    if need.tags and any(model.tags.get(name) != value for name, value in need.tags):
        return "tags"
    if need.vision and model.vision is False:
        return "vision"
    if need.audio and model.audio is False:
        return "audio"
    if need.files and model.files is False:
        return "files"
    if need.tools and model.tools is False:
        return "tools"
    if need.structured_output and model.structured_output is False:
        return "structured_output"
    wanted = need.max_output_tokens or 0
    if model.context_tokens is not None and need.prompt_tokens + wanted > model.context_tokens:
        return "context"
    if model.max_output_tokens is not None and wanted > model.max_output_tokens:
        return "output"
    return None
