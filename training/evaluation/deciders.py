"""What evaluation asks of the thing it measures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from routing.decision import Decision
from routing.records import ConversationRecord
from training.evaluation.benchmark import without_answers

_END = object()


class EvaluationError(RuntimeError):
    """A decider that cannot be measured: unavailable, failing, or answering nonsense."""


class Decider(Protocol):
    """Anything that routes: a checkpoint, a running server, a baseline."""

    name: str

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        """One list for each conversation, in order; in it one decision for each of its labels.

        The records come without their answers: every `expected` and all tags are empty.
        """
        ...


@runtime_checkable
class OracleFitted(Protocol):
    """A baseline that is fitted on the very file it is measured on, to its own advantage."""

    def fit(self, conversations: Sequence[ConversationRecord]) -> None:
        """Take what is needed from the labelled conversations."""
        ...

    @property
    def fitted(self) -> str:
        """What was fitted, for the report."""
        ...


@runtime_checkable
class Caching(Protocol):
    """A decider that keeps what it computed of one call for the next."""

    def clear_cache(self) -> None:
        """Forget it, so that timing a decision times all of it."""
        ...


@runtime_checkable
class Noting(Protocol):
    """A decider whose answers have something about them that a reader of figures must know."""

    def take_note(self) -> str | None:
        """What is to be said of the answers since this was last asked, or since the start."""
        ...


def checked(
    decider: Decider, conversations: Sequence[ConversationRecord]
) -> Iterator[list[Decision]]:
    """The decisions of each conversation, decided without its answers.

    Raises EvaluationError where there are too few or too many, or one is nonsense.
    """
    answers = decider.decide_all(map(without_answers, conversations))
    for conversation in conversations:
        decisions = next(answers, None)
        if decisions is None:
            raise EvaluationError(f"{decider.name}: stopped before conversation {conversation.id}")
        check_decisions(decider.name, conversation, decisions)
        yield decisions
    if next(iter(answers), _END) is not _END:
        raise EvaluationError(f"{decider.name}: answered more conversations than it was given")


def check_decisions(
    decider: str, conversation: ConversationRecord, decisions: Sequence[Decision]
) -> None:
    """Raises EvaluationError for answers that would be scored as something they are not."""
    at = f"{decider}: conversation {conversation.id!r}"
    if len(decisions) != len(conversation.decisions):
        raise EvaluationError(
            f"{at}: {len(decisions)} decisions for {len(conversation.decisions)} user turns"
        )
    names = {route.name for route in conversation.routes}
    for decision in decisions:
        unknown = {decision.route, *decision.routes} - names - {None}
        if unknown:
            raise EvaluationError(f"{at}: chose {unknown.pop()!r}, which is not among the routes")
        if not (math.isfinite(decision.confidence) and 0 <= decision.confidence <= 1 + 1e-6):
            raise EvaluationError(f"{at}: confidence {decision.confidence} is no probability")
