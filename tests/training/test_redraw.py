"""Drawing records anew: what changes from epoch to epoch, and what never does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from routing_data import records

from routing.records import Alternatives, ConversationRecord, Wordings
from routing.tasks import Route
from training.recipe import Redraw
from training.redraw import redraw


@pytest.fixture
def record() -> ConversationRecord:
    (made,) = records(1, seed=1, turns=1)
    names = [route.name for route in made.routes]
    spare = [Route(name=f"spare{i}", description=f"Spare {i}.") for i in range(6)]
    wordings = [
        Wordings(of=name, routes=[Route(name=f"{name}-again", description="Said otherwise.")])
        for name in (*names, "spare0")
    ]
    return made.model_copy(update={"alternatives": Alternatives(wordings=wordings, spare=spare)})


def test_every_decision_keeps_its_meaning(record: ConversationRecord) -> None:
    for seed in range(40):
        drawn, before = redraw(record, Redraw(), random.Random(seed))
        offered = [route.name for route in drawn.routes]
        assert len(set(offered)) == len(offered) == len(record.routes)
        for label, old in zip(drawn.decisions, record.decisions, strict=True):
            assert [before[name] for name in label.expected] == old.expected
            assert set(label.expected) <= set(offered)
        ConversationRecord.model_validate(drawn.model_dump())


def test_order_wordings_and_distractors_change(record: ConversationRecord) -> None:
    draws = [redraw(record, Redraw(), random.Random(seed))[0] for seed in range(60)]
    names = {route.name for drawn in draws for route in drawn.routes}
    needed = {name for label in record.decisions for name in label.expected}
    assert all({name, f"{name}-again"} <= names for name in needed)
    assert any(name.startswith("spare") for name in names)
    places = {
        [route.name.removesuffix("-again") for route in drawn.routes].index(min(needed))
        for drawn in draws
    }
    assert places == {0, 1, 2}


def test_what_is_switched_off_stays(record: ConversationRecord) -> None:
    off = Redraw(order=False, wordings=False, distractors=False)
    drawn, _ = redraw(record, off, random.Random(1))
    assert drawn.routes == record.routes
    assert drawn.decisions == record.decisions


def test_a_curriculum_begins_with_few_routes_and_ends_with_all() -> None:
    (made,) = records(1, turns=1)
    far = [Route(name=f"far{i}", description=f"Far {i}.") for i in range(20)]
    wide = made.model_copy(update={"routes": [*made.routes, *far]})
    settings = Redraw(most_routes=4, curriculum_epochs=1.0)
    counts = [
        len(redraw(wide, settings, random.Random(0), epoch)[0].routes)
        for epoch in (0.0, 0.25, 0.5, 1.0)
    ]
    assert counts == [4, 8, 16, 23]
    needed = {name for label in wide.decisions for name in label.expected}
    first, _ = redraw(wide, settings, random.Random(0), 0.0)
    assert needed <= {route.name for route in first.routes}


def test_records_with_alternatives_are_read_and_checked(
    record: ConversationRecord, tmp_path: Path
) -> None:
    from routing.errors import InvalidRecord
    from routing.records import read_conversations

    path = tmp_path / "a.jsonl"
    path.write_text(record.model_dump_json() + "\n")
    assert next(iter(read_conversations(path))) == record
    twice = record.model_copy(update={"alternatives": Alternatives(spare=[record.routes[0]])})
    path.write_text(twice.model_dump_json() + "\n")
    with pytest.raises(InvalidRecord, match="must not repeat"):
        next(iter(read_conversations(path)))


def test_the_trainer_says_which_epoch_is_drawn_and_how_far_a_curriculum_is() -> None:
    from types import SimpleNamespace

    from training.trainer import _Epochs

    collator = SimpleNamespace(epoch=-1, progress=-1.0)
    callback = _Epochs(collator)  # type: ignore[arg-type]
    callback.on_epoch_begin(None, SimpleNamespace(epoch=None), None)
    assert (collator.epoch, collator.progress) == (0, 0.0)
    callback.on_step_begin(None, SimpleNamespace(epoch=0.374), None)
    assert (collator.epoch, collator.progress) == (0, 0.25)
    # The end of an epoch, by a hair; and a run that is resumed in the middle of one.
    callback.on_epoch_begin(None, SimpleNamespace(epoch=0.9999999999), None)
    assert (collator.epoch, collator.progress) == (1, 1.0)
    callback.on_epoch_begin(None, SimpleNamespace(epoch=1.51), None)
    assert (collator.epoch, collator.progress) == (1, 1.5)
