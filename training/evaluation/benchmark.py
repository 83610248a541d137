"""Benchmark files: decision records grouped into conversations that are decided in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from routing.conversation import normalise
from routing.errors import InvalidRecord, InvalidRequest
from routing.records import (
    ConversationRecord,
    DecisionLabel,
    DecisionRecord,
    read_decisions,
)


@dataclass(frozen=True)
class Benchmark:
    """Conversations of one file, with the file's hash so that a figure can be traced to it."""

    name: str
    sha256: str
    conversations: list[ConversationRecord]

    @property
    def decisions(self) -> int:
        return sum(len(conversation.decisions) for conversation in self.conversations)


def read_benchmark(path: str | Path, limit: int | None = None) -> Benchmark:
    """The conversations of a .jsonl(.gz) file of decision records.

    `limit` takes the first lines, and the rest of a conversation that they cut. Raises
    InvalidRecord, naming file and line or record, for a malformed, repeated or undecidable one,
    and for a file without any.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise ValueError("limit must be at least 1")
    conversations = list(_conversations(_checked(path, limit)))
    if not conversations:
        raise InvalidRecord(f"{path}: no records")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Benchmark(path.name.removesuffix(".gz").removesuffix(".jsonl"), digest, conversations)


def without_answers(conversation: ConversationRecord) -> ConversationRecord:
    """What a decider may see: routes, messages and which of them to decide."""
    blank = [DecisionLabel(message=label.message, expected=[]) for label in conversation.decisions]
    return conversation.model_copy(update={"decisions": blank, "tags": {}})


def _checked(path: Path, limit: int | None) -> Iterator[DecisionRecord]:
    """Records of the first `limit` lines, up to the end of the conversation begun in them."""
    seen: set[str] = set()
    conversation = ""
    for record in read_decisions(path):
        if limit is not None and len(seen) >= limit and record.conversation_id != conversation:
            return
        conversation = record.conversation_id
        if record.id in seen:
            raise InvalidRecord(f"{path}: record {record.id!r} appears twice", field="id")
        seen.add(record.id)
        _check_messages(record, f"{path}: record {record.id!r}")
        yield record


def _check_messages(record: DecisionRecord, at: str) -> None:
    try:
        decided = normalise(record.messages).user_messages
    except InvalidRequest as error:
        raise InvalidRecord(f"{at}: {error.message}", field=error.field) from None
    last = len(record.messages) - 1
    if last not in decided:
        raise InvalidRecord(f"{at}: messages[{last}] is blank, so there is nothing to route")


def _conversations(records: Iterator[DecisionRecord]) -> Iterator[ConversationRecord]:
    run: list[DecisionRecord] = []
    for record in records:
        if run and not _extends(record, run[-1]):
            yield _grouped(run)
            run = []
        run.append(record)
    if run:
        yield _grouped(run)


def _extends(record: DecisionRecord, previous: DecisionRecord) -> bool:
    length = len(previous.messages)
    return (
        record.conversation_id == previous.conversation_id
        and record.routes == previous.routes
        and len(record.messages) > length
        and record.messages[:length] == previous.messages
    )


def _grouped(run: list[DecisionRecord]) -> ConversationRecord:
    """One record for a run; its id is the conversation's, so two runs of one share it."""
    labels = [
        DecisionLabel(
            message=len(record.messages) - 1,
            expected=record.expected,
            tags={**record.tags, "id": record.id, "turn": record.turn},
        )
        for record in run
    ]
    return ConversationRecord(
        id=run[0].conversation_id,
        routes=run[-1].routes,
        messages=run[-1].messages,
        decisions=labels,
    )
