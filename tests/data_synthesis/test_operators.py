"""Operators: what each does to a conversation, and that labels stay true."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from making import inputs, recipe
from pydantic import TypeAdapter

from data_synthesis.authored.source import AuthoredSource
from data_synthesis.casting import Cast
from data_synthesis.draft import Draft, Line
from data_synthesis.operators import AnyOperator, Operator
from data_synthesis.render import render
from data_synthesis.shards import conversation_row, encode
from data_synthesis.stage import Stage
from data_synthesis.typing_noise import roughen
from routing.conversation import normalise
from routing.records import ConversationRecord


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    made = inputs(tmp_path_factory.mktemp("data"), recipe())
    return Stage(made.sources, {source.name: 1.0 for source in made.sources}, made.library)


def operator(op: str, **values: Any) -> Operator:
    found: Operator = TypeAdapter(AnyOperator).validate_python({"op": op, **values})
    return found


def draft(*texts: tuple[str, str | None], source: str = "authored") -> Draft:
    lines = [
        Line("assistant", text)
        if task == "-"
        else Line("user", text, (task,) if task else (), alone=True)
        for text, task in texts
    ]
    return Draft(source, "x", tuple(lines), "dialogue")


MEND, COUNT, PAINT = (f"authored/forge/{verb}_forge" for verb in ("mend", "count", "paint"))
BREAD = "authored/bakery/sell_bakery"
OFFER = {"counts": [{"low": 4, "high": 6}]}


def test_shares_decide_how_many_drafts_change(stage: Stage) -> None:
    said = draft(("mend the forge", MEND))
    half = operator("pad_context", share=0.5)
    changed = sum(half(Random(n), said, stage) != said for n in range(400))
    assert 150 < changed < 250
    assert operator("pad_context", share=0)(Random(1), said, stage) == said


def test_the_same_seed_gives_the_same_change(stage: Stage) -> None:
    said = draft(("mend the forge", MEND), ("ok", "-"), ("count it", COUNT))
    for op in ("mix_scenarios", "inject_irrelevance", "agent_envelopes", "hasty_typing"):
        assert operator(op)(Random(4), said, stage) == operator(op)(Random(4), said, stage)


def test_mixed_in_requests_keep_their_own_label_and_what_was_said_stays(stage: Stage) -> None:
    said = draft(("mend the forge", MEND), ("ok", "-"), ("count it", COUNT))
    mixed = [operator("mix_scenarios")(Random(n), said, stage) for n in range(60)]
    for found in mixed:
        texts = [line.text for line in found.lines]
        assert [t for t in texts if t in ("mend the forge", "ok", "count it")] == [
            line.text for line in said.lines
        ]
    guests = [line for found in mixed for line in found.lines if line.kind == "shift"]
    assert len(guests) > 40
    for line in guests:
        assert line.tasks is not None
        (key,) = line.tasks
        assert stage.cast.foreign(MEND, key)
        assert stage.cast.foreign(COUNT, key)
    assert {bool(found.missing) for found in mixed} == {True, False}


def test_irrelevant_turns_need_nothing_and_bar_what_would_fit_them(stage: Stage) -> None:
    said = draft(("mend the forge", MEND))
    found = [operator("inject_irrelevance")(Random(n), said, stage) for n in range(40)]
    idle = [line for f in found for line in f.lines if line.kind in ("small_talk", "off_topic")]
    assert len(idle) > 20
    assert all(line.tasks == () for line in idle)
    assert all("chat" in f.barred for f in found if len(f.lines) > 1)


def test_joined_requests_need_both_routes(stage: Stage) -> None:
    said = draft(("mend the forge", MEND), ("ok", "-"), ("sell the bakery", BREAD))
    joined = [operator("join_requests")(Random(n), said, stage) for n in range(30)]
    several = [line for f in joined for line in f.lines if line.kind == "several"]
    assert several
    for line in several:
        assert line.tasks is not None
        assert len(set(line.tasks)) == 2
        assert "And then:" in line.text


def test_a_removed_task_takes_what_borders_on_it_along(stage: Stage) -> None:
    said = draft(("mend", MEND), ("ok", "-"), ("count", COUNT), ("ok", "-"), ("bread", BREAD))
    assert not stage.cast.foreign(COUNT, MEND)  # neighbours in the taxonomy
    for n in range(30):
        found = operator("remove_gold")(Random(n), said, stage)
        assert found.missing in (frozenset({MEND, COUNT}), frozenset({BREAD}))
        offered = operator("offer_routes", **OFFER)(Random(n), found, stage).offered
        for unit in offered:
            assert all(stage.cast.foreign(unit, key) for key in found.missing)


@pytest.mark.parametrize("grain", ["task", "domain", "family", "mixed"])
def test_offered_routes_cover_each_task_once(stage: Stage, grain: str) -> None:
    said = draft(("mend", MEND), ("ok", "-"), ("bread", BREAD))
    for n in range(40):
        offered = operator("offer_routes", **OFFER, grains={grain: 1})(
            Random(n), said, stage
        ).offered
        assert len(set(offered)) == len(offered) >= 2
        for key in (MEND, BREAD):
            assert sum(stage.cast.covers(unit, key) for unit in offered) == 1
        if grain in ("domain", "family") and stage.cast.grain(offered[0]) == grain:
            assert {stage.cast.grain(unit) for unit in offered} == {grain}


@pytest.mark.parametrize("grain", ["domain", "family", "area", "mixed"])
def test_no_broad_route_would_take_idle_talk(stage: Stage, grain: str) -> None:
    said = replace(draft(("mend", MEND)), barred=frozenset({"personal", "business"}))
    for n in range(30):
        offered = operator("offer_routes", **OFFER, grains={grain: 1})(
            Random(n), said, stage
        ).offered
        assert not [unit for unit in offered if stage.cast.in_areas(unit, said.barred)]
        assert sum(stage.cast.covers(unit, MEND) for unit in offered) == 1


def test_near_distractors_are_drawn_when_asked_for(stage: Stage) -> None:
    said = draft(("mend", MEND))

    def near(share: float) -> float:
        offers = [
            operator("offer_routes", counts=[{"low": 3, "high": 3}], near_share=share)(
                Random(n), said, stage
            ).offered
            for n in range(60)
        ]
        others = [unit for offer in offers for unit in offer if unit != MEND]
        return sum("/forge/" in unit for unit in others) / len(others)

    assert near(1.0) > 0.9 > 0.6 > near(0.0)


def test_shuffling_puts_the_right_route_anywhere(stage: Stage) -> None:
    said = draft(("mend", MEND))
    offered = operator("offer_routes", counts=[{"low": 4, "high": 4}])(Random(1), said, stage)
    places = Counter(
        operator("shuffle_routes")(Random(n), offered, stage).offered.index(MEND)
        for n in range(400)
    )
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 60


def test_spare_routes_are_as_safe_as_distractors_and_written_down(stage: Stage) -> None:
    said = operator("offer_routes", **OFFER)(Random(3), draft(("mend it", MEND)), stage)
    spared = operator("spare_routes", count=3, wordings=2)(Random(4), said, stage)
    assert spared.offered == said.offered
    assert spared.spare
    assert not set(spared.spare) & set(said.offered)
    assert not any(stage.cast.covers(unit, MEND) for unit in spared.spare)
    record = render(Random(5), spared, stage.cast, "r")
    assert record.alternatives is not None
    assert len(record.alternatives.spare) == len(spared.spare)
    known = {route.name for route in (*record.routes, *record.alternatives.spare)}
    assert {wordings.of for wordings in record.alternatives.wordings} <= known
    row = conversation_row(record)
    assert ConversationRecord.model_validate(json.loads(encode(row))).alternatives is not None
    assert "alternatives" not in conversation_row(render(Random(5), said, stage.cast, "r"))


def test_what_agents_wrap_around_words_is_taken_off_again(stage: Stage) -> None:
    said = draft(("mend the forge", MEND), ("ok", "-"), ("count it", COUNT), ("fine", "-"))
    roles: Counter[str] = Counter()
    reminded = 0
    for n in range(60):
        found = operator("agent_envelopes")(Random(n), said, stage)
        messages = [{"role": x.role, "content": x.text, **x.extra} for x in found.lines]
        roles.update(message["role"] for message in messages)
        turns = normalise(messages).turns
        assert [t.text for t in turns if t.role == "user"] == ["mend the forge", "count it"]
        reminded += any("<system-reminder>" in m["content"] for m in messages)
        assert sum(line.tasks is not None for line in found.lines) == 2
    assert roles["tool"]
    assert roles["system"]
    assert reminded > 10


def test_padding_leaves_the_request_at_the_end(stage: Stage) -> None:
    said = draft(("mend the forge", MEND))
    for n in range(20):
        found = operator("pad_context", pieces=3)(Random(n), said, stage)
        assert found.lines[0].text.endswith("\n\nmend the forge")
        assert len(found.lines[0].text) > len("mend the forge") + 5


def test_hasty_typing_leaves_pasted_material_alone() -> None:
    text = "Please, could you mend this for me?\n\ndef The_Thing():\n    return 'A, B.'"
    heads = set()
    for n in range(80):
        head, _, rest = roughen(Random(n), text).partition("\n\n")
        assert rest == "def The_Thing():\n    return 'A, B.'"
        heads.add(head)
    assert len(heads) > 12


def test_owners_word_their_routes_in_one_style(stage: Stage) -> None:
    styles = Counter(
        str(operator("word_routes")(Random(n), draft(("x", MEND)), stage).tags["style"])
        for n in range(200)
    )
    assert len(styles) > 12


def test_tasks_of_different_sources_that_share_a_telling_word_are_kept_apart(
    stage: Stage, tmp_path: Path
) -> None:
    cast = stage.cast
    assert not cast.together("sgd/Boats_1/Find", "sgd/Boats_2/Find")  # noted by the corpus
    assert cast.together("sgd/Boats_1/Find", "sgd/Trains_1/Find")
    assert cast.together(MEND, BREAD)
    assert "metatool/tool_z0" not in cast.tasks  # accepts almost anything


def test_a_coarse_unit_borders_on_what_its_members_border_on(stage: Stage) -> None:
    cast: Cast = stage.cast
    assert cast.covers("family:mending", MEND)
    assert not cast.covers("family:counting", MEND)
    assert not cast.foreign("family:counting", MEND)  # counting the forge borders on mending it
    assert cast.covers("domain:forge", MEND)
    assert cast.covers("area:coding", MEND)
    assert isinstance(stage.sources["authored"], AuthoredSource)
