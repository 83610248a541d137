"""Soft targets: a larger model's distributions over training records, to distil a smaller from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from routing.records import ConversationRecord, read_conversations
from training.scoring import ModelDecider


def soften(checkpoint: Path, base: Path | None, data: Path, output: Path) -> int:
    """Write one line a decision, {"id", "message", "distribution"}; returns how many.

    Distributions are over the routes as written, under the checkpoint's own temperature. `output`
    appears once it is whole.
    """
    decider = ModelDecider.from_checkpoint(checkpoint, base)
    part = output.with_name(output.name + ".part")
    output.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with part.open("w", encoding="utf-8") as file:
        for records in _windows(read_conversations(data)):
            for record, decisions in zip(records, decider.decide_all(records), strict=True):
                for label, decision in zip(record.decisions, decisions, strict=True):
                    row = {
                        "id": record.id,
                        "message": label.message,
                        "distribution": {k: round(v, 6) for k, v in decision.distribution.items()},
                    }
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    count += 1
    part.replace(output)
    return count


def _windows(records: Iterator[ConversationRecord]) -> Iterator[list[ConversationRecord]]:
    while window := list(islice(records, 64)):
        yield window
