"""What is kept of requests, and for how long."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from serving.config_base import Strict

Days = Annotated[float, Field(gt=0)]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    return pattern


class TextConfig(Strict):
    """What was said, for those who retrain on their own traffic. Off unless the owner says so."""

    store: bool = False
    """Whether the conversation up to the turn that decided is kept, redacted."""
    retention_days: Days = 7
    """Never longer than the decision itself."""
    max_characters: Annotated[int, Field(ge=100, le=1_000_000)] = 32_000
    """Of one conversation; of a longer one the last turns are kept."""
    redact: list[Annotated[str, AfterValidator(_compiles)]] = Field(default_factory=list)
    """Regular expressions (Python's) of what else must not be stored."""


class RecordsConfig(Strict):
    """Decisions and attempts in the database; nothing is recorded without `storage`."""

    enabled: bool = True
    """Off, the storage is for routers and keys alone."""
    queue: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Records that may wait for the database; beyond it new ones are dropped, and counted."""
    retention_days: Days | None = 30
    """Null keeps them for ever."""
    text: TextConfig = TextConfig()
    """Conversations, which are not kept unless this says so."""
