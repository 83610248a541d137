"""How much there is to train on: from a data folder's manifest, or from numbers given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.recipe import RecipeError

DECISIONS_EACH = 4.6
TOKENS_EACH = 370
"""Decisions and tokens of a conversation, as in the nano data, where only others are given."""
_BIN = 50
"""Width of the bins of `tokens_a_conversation`; the last of them is open."""
_LAST_BIN = 2000


@dataclass(frozen=True, slots=True)
class Workload:
    """What one epoch passes through."""

    conversations: int
    decisions: int
    tokens: int
    longest: int | None = None
    """Tokens of the longest conversation, where that is known."""
    assumed: str | None = None
    """What of it is an assumption."""

    @property
    def mean(self) -> float:
        """Tokens of a conversation."""
        return self.tokens / self.conversations


def read_workload(folder: Path) -> Workload:
    """The training part of a folder that `pointsman data` wrote; raises RecipeError.

    Tokens are those that the data's own build counted, without the layout's markup.
    """
    path = folder / "dataset.json"
    try:
        part: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["parts"]["train"]
        conversations, decisions = int(part["conversations"]), int(part["decisions"])
        bins = {int(low): int(count) for low, count in part["tokens_a_conversation"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"data: cannot read {path}: {error!r}") from None
    counted = sum(bins.values())
    if not conversations or not counted:
        return _given(conversations or None, decisions or None, None, f"{path} counts no tokens")
    mean = sum((low + _BIN / 2) * count for low, count in bins.items()) / counted
    longest = max(bins) + _BIN if max(bins) < _LAST_BIN else None
    return Workload(conversations, decisions, round(mean * conversations), longest)


def given_workload(
    conversations: int | None = None, decisions: int | None = None, tokens: int | None = None
) -> Workload | None:
    """A workload of which some is given and the rest follows; None where nothing is."""
    if conversations is decisions is tokens is None:
        return None
    for name, value in {
        "conversations": conversations,
        "decisions": decisions,
        "tokens": tokens,
    }.items():
        if value is not None and value < 1:
            raise RecipeError(f"{name}: {value} is nothing to train on")
    return _given(conversations, decisions, tokens, None)


def _given(
    conversations: int | None, decisions: int | None, tokens: int | None, why: str | None
) -> Workload:
    missing = [
        name for name, value in {"decisions": decisions, "tokens": tokens}.items() if value is None
    ]
    if conversations is None:
        by_tokens = tokens / TOKENS_EACH if tokens is not None else None
        by_decisions = decisions / DECISIONS_EACH if decisions is not None else None
        found = by_decisions if by_decisions is not None else by_tokens
        if found is None:
            raise RecipeError(f"data: {why or 'nothing to train on'}")
        conversations = max(1, round(found))
        missing.append("conversations")
    assumed = None
    if missing:
        each = f"{DECISIONS_EACH} decisions and {TOKENS_EACH} tokens a conversation"
        assumed = f"{' and '.join(missing)} at {each}" + (f" ({why})" if why else "")
    return Workload(
        conversations,
        round(conversations * DECISIONS_EACH) if decisions is None else decisions,
        conversations * TOKENS_EACH if tokens is None else tokens,
        None,
        assumed,
    )
