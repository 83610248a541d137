"""Training and serving read the same checkpoint alike: on tiny models and on the release."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

import pytest
from tiny import make_checkpoint

from routing.conversation import Conversation, normalise
from routing.decision import Decision
from routing.pointer import LineState
from routing.records import ConversationRecord, DecisionLabel
from routing.tasks import Route
from serving.engine.embedded import EmbeddedEngine
from training.scoring import ModelDecider

ROUTES = [
    Route(name="refunds", description="The customer wants money back."),
    Route(name="delivery_status", description="Where an order is, and when it will come."),
    Route(name="account_access", description="Passwords, sign-in and locked accounts."),
    Route(name="complaints", description="Dissatisfaction with products, staff or service."),
]
TALKS = [
    ["Where is my parcel?", "It should have come on Monday!", "I want my money back then."],
    ["i cant log in", "thanks, works", "Your driver threw the box over the fence."],
    ["What is the capital of France?", "ok bye"],
]


def record(number: int, texts: list[str]) -> ConversationRecord:
    messages: list[dict[str, str]] = []
    for text in texts:
        messages += [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "I see. Let me look."},
        ]
    labels = [DecisionLabel(message=2 * n, expected=[]) for n in range(len(texts))]
    return ConversationRecord(id=str(number), routes=ROUTES, messages=messages, decisions=labels)


RECORDS = [record(number, texts) for number, texts in enumerate(TALKS)]


def up_to(conversation: ConversationRecord, message: int) -> Conversation:
    return normalise(conversation.messages[: message + 1])


async def served(checkpoint: Path, base: Path | None) -> list[Decision]:
    """Every turn as a server would decide it: one after the other, caches at work."""
    engine = EmbeddedEngine(checkpoint, base)
    await engine.start()
    try:
        return [
            await engine.decide(each.routes, up_to(each, label.message))
            for each in RECORDS
            for label in each.decisions
        ]
    finally:
        await engine.close()


def assert_agree(checkpoint: Path, base: Path | None) -> None:
    decider = ModelDecider.from_checkpoint(checkpoint, base)
    trained = [decision for each in decider.decide_all(RECORDS) for decision in each]
    for one, other in zip(trained, asyncio.run(served(checkpoint, base)), strict=True):
        assert one.route == other.route
        assert one.distribution == pytest.approx(other.distribution, abs=2e-4)


@pytest.mark.parametrize("read_out", ["pointer", "identifier"])
@pytest.mark.parametrize("weights", ["merged", "adapter"])
def test_tiny_checkpoints(
    tmp_path: Path,
    read_out: Literal["pointer", "identifier"],
    weights: Literal["merged", "adapter"],
) -> None:
    made = make_checkpoint(tmp_path / "c", read_out=read_out, weights=weights)
    assert_agree(made.folder, made.base)


@pytest.mark.parametrize("lines", ["end", "mean"])
def test_tiny_checkpoints_of_layout_2(tmp_path: Path, lines: LineState) -> None:
    made = make_checkpoint(tmp_path / "c", layout_version=2, lines=lines)
    assert_agree(made.folder, made.base)


def test_the_release(nano: Path, base_folder: Path) -> None:
    assert_agree(nano, base_folder)


def test_the_release_is_small_enough_for_a_clone(nano: Path) -> None:
    assert sum(file.stat().st_size for file in nano.iterdir()) <= 40 * 10**6
    assert not list(nano.glob("*.bin"))
    assert not list(nano.glob("*.pt"))


def test_the_order_of_routes_changes_nothing_but_as_listed(tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "c", layout_version=2, lines="mean")
    turned = [each.model_copy(update={"routes": each.routes[::-1]}) for each in RECORDS]

    def decided(records: list[ConversationRecord], *, as_listed: bool) -> list[Decision]:
        decider = ModelDecider.from_checkpoint(made.folder, made.base, as_listed=as_listed)
        return [decision for each in decider.decide_all(records) for decision in each]

    def largest_difference(*, as_listed: bool) -> float:
        pairs = zip(
            decided(RECORDS, as_listed=as_listed), decided(turned, as_listed=as_listed), strict=True
        )
        return max(
            abs(share - other.distribution[name])
            for one, other in pairs
            for name, share in one.distribution.items()
        )

    assert largest_difference(as_listed=False) < 1e-5
    assert largest_difference(as_listed=True) > 1e-3
