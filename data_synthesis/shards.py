"""Making one shard: records, sketches and counts, in any process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from data_synthesis.compose import Composer
from data_synthesis.quality.contamination import Contamination
from data_synthesis.quality.duplicates import Bands, Sketcher
from data_synthesis.quality.statistics import Statistics
from data_synthesis.recipe import DataRecipe
from routing.records import ConversationRecord


@dataclass(frozen=True, slots=True)
class Made:
    """One record, ready to be written if it is not a duplicate of an earlier one."""

    line: bytes
    decisions: tuple[bytes, ...]
    bands: Bands
    statistics: Statistics


@dataclass(slots=True)
class Shard:
    """The records of a shard in order, and how many were dropped for contamination."""

    index: int
    made: list[Made] = field(default_factory=list)
    contaminated: int = 0


@dataclass(frozen=True)
class ShardMaker:
    """Makes the shards of one part of the data."""

    part: str
    recipe: DataRecipe
    composer: Composer
    contamination: Contamination
    tokenizer: Tokenizer | None
    total: int
    """Conversations drawn for the part."""
    sample: int
    """Shards from the first whose texts are counted in detail."""

    def __call__(self, index: int) -> Shard:
        """Shard `index`; the same at any time, in any process."""
        size = self.recipe.shard_conversations
        sketch = Sketcher(self.recipe.duplicates)
        shard = Shard(index)
        for number in range(index * size, min((index + 1) * size, self.total)):
            record = self.composer.record(f"{self.recipe.name}-{self.part}-{number:08d}")
            texts = [m["content"] for m in record.messages if m["role"] == "user"]
            if self.contamination and any(self.contamination.touches(text) for text in texts):
                shard.contaminated += 1
                continue
            shard.made.append(self._made(record, texts, sketch, index < self.sample))
        return shard

    def _made(
        self, record: ConversationRecord, texts: list[str], sketch: Sketcher, detailed: bool
    ) -> Made:
        statistics = Statistics()
        statistics.add(record)
        if detailed:
            statistics.add_text(texts)
            if self.tokenizer is not None:
                tokens = len(self.tokenizer.encode(_all_text(record)).ids)
                statistics.count("tokens", min(tokens // 50 * 50, 2000))
        forms = self.recipe.forms
        return Made(
            encode(conversation_row(record)) if "conversation" in forms else b"",
            tuple(encode(row) for row in decision_rows(record)) if "decision" in forms else (),
            sketch(texts),
            statistics,
        )


TAGS = ("source", "licence", "scene", "grain", "k")
MESSAGE_EXTRAS = ("tool_calls", "tool_call_id")


def conversation_row(record: ConversationRecord) -> dict[str, object]:
    """A conversation record as JSON; every row of a recipe has the same fields, as tables need."""
    row: dict[str, object] = {
        "id": record.id,
        "routes": [route.model_dump() for route in record.routes],
        "messages": [_message(message) for message in record.messages],
        "decisions": [
            {
                "message": label.message,
                "expected": label.expected,
                "tags": {"kind": label.tags["kind"], "tasks": label.tags["tasks"]},
            }
            for label in record.decisions
        ],
        "tags": {name: record.tags.get(name) for name in TAGS},
    }
    if record.alternatives is not None:
        row["alternatives"] = record.alternatives.model_dump()
    return row


def decision_rows(record: ConversationRecord) -> Iterator[dict[str, object]]:
    """The decision records of a conversation, each with the conversation up to it."""
    routes = [route.model_dump() for route in record.routes]
    messages = [_message(message) for message in record.messages]
    for turn, label in enumerate(record.decisions):
        yield {
            "id": f"{record.id}-{turn}",
            "conversation_id": record.id,
            "turn": turn,
            "routes": routes,
            "messages": messages[: label.message + 1],
            "expected": label.expected,
            "tags": {**{name: record.tags.get(name) for name in TAGS}, "kind": label.tags["kind"]},
        }


def encode(row: dict[str, object]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _message(message: dict[str, object]) -> dict[str, object]:
    return {
        "role": message["role"],
        "content": message["content"],
        **{name: message[name] for name in MESSAGE_EXTRAS if name in message},
    }


def _all_text(record: ConversationRecord) -> str:
    routes = "\n".join(f"{route.name}: {route.description}" for route in record.routes)
    return routes + "\n" + "\n".join(str(m["content"]) for m in record.messages)
