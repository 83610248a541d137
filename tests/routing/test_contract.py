"""Tasks on the wire, decisions, calibration, manifest and records."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import save_file

from routing.calibration import fit, labelled, risk_points
from routing.decision import Calibration, decide, softmax
from routing.errors import InvalidRecord, InvalidScores, UnsupportedCheckpoint
from routing.layout import Budget
from routing.manifest import BaseModelRef, Manifest, PointerReadOut, file_sha256, load_manifest
from routing.pointer import PointerHead
from routing.records import read_conversations, read_decisions
from routing.tasks import PresetTask, Router, RoutingPreference, resolve_pools

BODY: dict[str, Any] = {
    "name": "support-desk",
    "description": "Our help desk",
    "policies": [
        {"task_slug": "translation", "models": ["a/one", "b/two"]},
        {
            "custom_task": {"name": 'refund\'s "due" 返金', "description": "Money back."},
            "models": ["b/two"],
            "selection_policy": {"prefer": "cheapest"},
        },
    ],
    "fallback_models": ["c/three"],
}
PRESET = PresetTask(slug="translation", name="translation", description="Other languages.")


def changed(**updates: Any) -> dict[str, Any]:
    return {**BODY, **updates}


def policy(**updates: Any) -> dict[str, Any]:
    return {**BODY["policies"][1], **updates}


def test_a_router_resolves_to_pools_in_declared_order() -> None:
    pools = resolve_pools(Router.model_validate(BODY), [PRESET])
    assert [pool.route.name for pool in pools] == ["translation", 'refund\'s "due" 返金']
    assert pools[0].models == ["a/one", "b/two"]
    assert [pool.selection_policy.prefer for pool in pools] == [None, "cheapest"]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (changed(name="Support"), "pattern"),
        (changed(name="x" * 256), "at most 255"),
        (changed(policies=[]), "at least 1"),
        (changed(fallback_models=[]), "at least 1"),
        (changed(fallback_models=["a", "a"]), "must not repeat"),
        (changed(extra=1), "Extra inputs"),
        (changed(policies=[policy(models=[])]), "at least 1"),
        (changed(policies=[policy(models=["a", "b", "c", "d"])]), "at most 3"),
        (changed(policies=[policy(models=["a", "a"])]), "must not repeat"),
        (changed(policies=[policy(models=["a b"])]), "pattern"),
        (changed(policies=[policy(task_slug="translation")]), "exactly one"),
        (changed(policies=[policy(custom_task=None)]), "exactly one"),
        (changed(policies=[policy(selection_policy={"prefer": "best"})]), "cheapest"),
        (changed(policies=[policy(), policy()]), "must not repeat"),
    ],
)
def test_bad_routers_are_refused(body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Router.model_validate(body)


@pytest.mark.parametrize("name", ["", " lead", "two\nlines", "tab\t", "None", "nul\0", "\ud800"])
def test_names_that_could_break_prompts_or_headers_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        RoutingPreference(name=name, description="x", models=["a"])


def test_unknown_preset_and_clashing_names_are_named() -> None:
    router = Router.model_validate(changed(policies=[{"task_slug": "nope", "models": ["a"]}]))
    with pytest.raises(ValueError, match="'nope'"):
        resolve_pools(router, [PRESET])
    own = {"custom_task": {"name": "Translation", "description": "x"}, "models": ["a"]}
    router = Router.model_validate(changed(policies=[BODY["policies"][0], own]))
    with pytest.raises(ValueError, match="must not repeat"):
        resolve_pools(router, [PRESET])


# Decisions


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20), st.floats(0.1, 10))
def test_a_decision_is_a_distribution(scores: list[float], temperature: float) -> None:
    names = [f"r{i}" for i in range(len(scores) - 1)]
    decision = decide(names, scores, Calibration(temperature=temperature))
    assert list(decision.distribution) == [*names, "none"]
    assert sum(decision.distribution.values()) == pytest.approx(1)
    assert decision.confidence == decision.distribution[decision.route or "none"]
    if decision.route is None:
        assert decision.routes == []
    else:
        best = max(names, key=lambda name: decision.distribution[name])
        assert decision.routes[0] == decision.route
        assert decision.distribution[decision.route] == decision.distribution[best]


def test_the_threshold_decides_between_none_and_the_best_route() -> None:
    scores = np.log([0.45, 0.05, 0.5])
    assert decide(["a", "b"], scores, Calibration(none_threshold=0.5)).route is None
    assert decide(["a", "b"], scores, Calibration(none_threshold=0.51)).route == "a"


def test_a_turn_may_need_several_routes() -> None:
    scores = np.log([0.4, 0.45, 0.05, 0.1])
    assert decide(["a", "b", "c"], scores, Calibration()).routes == ["b", "a"]


@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, 3.0, 4.0], [1.0, np.nan, 0.0], [[1, 2, 3]]])
def test_nonsense_scores_raise(scores: Any) -> None:
    with pytest.raises(InvalidScores):
        decide(["a", "b"], scores, Calibration())


def test_calibration_recovers_an_overconfident_scorer() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(2000, 5)) * 1.5
    names = ["a", "b", "c", "d"]
    decisions = []
    for row in honest:
        outcome = rng.choice(5, p=softmax(row))
        decisions.append(labelled(row * 4, names, [] if outcome == 4 else [names[outcome]]))
    calibration = fit(decisions)
    assert calibration.temperature == pytest.approx(4, rel=0.1)


def test_calibration_corrects_how_often_nothing_fits() -> None:
    rng = np.random.default_rng(1)
    names = ["a", "b", "c", "d"]
    decisions = []
    for row in rng.normal(size=(2000, 5)) * 1.5:
        outcome = rng.choice(5, p=softmax(row))
        shifted = row * 2 - np.array([0, 0, 0, 0, 3])  # "none" was rarer in training
        decisions.append(labelled(shifted, names, [] if outcome == 4 else [names[outcome]]))
    calibration = fit(decisions)
    assert calibration.none_bias == pytest.approx(3, abs=0.4)
    assert calibration.temperature == pytest.approx(2, rel=0.1)
    chosen = decide(names, [0, 0, 0, 0, 0], Calibration(none_bias=2.0))
    assert chosen.route is None
    assert chosen.confidence == pytest.approx(float(softmax([0, 0, 0, 0, 2])[4]))


def test_a_higher_threshold_keeps_less_with_fewer_errors() -> None:
    names = ["a", "b"]
    sure, unsure = [4.0, 0.0, 0.0], [1.0, 0.5, 0.0]
    rows = [(sure, ["a"])] * 6 + [(unsure, ["a"])] * 2 + [(unsure, ["b"])] * 2
    points = risk_points([labelled(s, names, e) for s, e in rows], Calibration(), steps=10)
    assert (points[0].threshold, points[0].coverage, points[0].error) == (0.0, 1.0, 0.2)
    assert (points[6].threshold, points[6].coverage, points[6].error) == (0.6, 0.6, 0.0)
    assert risk_points([labelled(unsure, names, ["a"])], Calibration(), steps=10)[9].error is None


def test_thresholds_are_fitted_to_accuracy() -> None:
    # The scorer says "none" with 0.7 where a route is right, and with 0.9 where none is.
    names = ["a", "b"]
    rows = [(np.log([0.2, 0.1, 0.7]), ["a"]), (np.log([0.06, 0.04, 0.9]), [])] * 50
    calibration = fit([labelled(scores, names, expected) for scores, expected in rows])
    for scores, expected in rows[:2]:
        decision = decide(names, scores, calibration)
        assert decision.route == (expected[0] if expected else None)
    with pytest.raises(ValueError, match="at least one"):
        fit([])


# Manifest and pointer head


def write_checkpoint(folder: Path, **updates: Any) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = {
        "query.weight": np.ones((2, 4), np.float32),
        "key.weight": np.ones((2, 4), np.float32),
        "log_scale": np.array(1.0, np.float32),
    }
    save_file(tensors, folder / "pointer.safetensors")
    manifest = Manifest(
        name="test",
        base=BaseModelRef(name="b", revision="1", hidden_size=4, vocabulary=9),
        weights="merged",
        read_out=PointerReadOut(dim=2),
        budget=Budget(),
        files={"pointer.safetensors": file_sha256(folder / "pointer.safetensors")},
    )
    manifest.save(folder)
    raw = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**raw, **updates}))
    return folder


def test_a_manifest_round_trips(tmp_path: Path) -> None:
    manifest = load_manifest(write_checkpoint(tmp_path / "c"))
    assert manifest.read_out == PointerReadOut(dim=2)
    older = manifest.model_dump(mode="json")
    del older["calibration"]["none_bias"], older["risk_coverage"]
    assert Manifest.model_validate(older).version == manifest.version
    recalibrated = manifest.model_copy(update={"calibration": Calibration(temperature=2)})
    assert recalibrated.version != manifest.version
    assert manifest.model_copy(update={"provenance": {"x": 1}}).version == manifest.version


@pytest.mark.parametrize(
    ("updates", "complaint"),
    [
        ({"layout_version": 3}, "layout version 3; this release knows 1, 2"),
        ({"layout_version": None}, "layout version None"),
        ({"manifest_version": 9}, "manifest_version"),
        ({"read_out": {"kind": "oracle"}}, "read_out"),
        ({"budget": {"max_tokens": "many"}}, "budget.max_tokens"),
        ({"files": {"gone.safetensors": "0"}}, "lacks gone"),
        ({"files": {"pointer.safetensors": "0"}}, "differs"),
    ],
)
def test_foreign_checkpoints_are_refused(
    tmp_path: Path, updates: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=complaint):
        load_manifest(write_checkpoint(tmp_path / "c", **updates))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="no checkpoint"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UnsupportedCheckpoint, match="not JSON"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UnsupportedCheckpoint, match="layout version"):
        load_manifest(tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match="pointer head"):
        PointerHead.load(tmp_path / "pointer.safetensors")


def test_pointer_scores_are_scaled_cosines(tmp_path: Path) -> None:
    identity = np.eye(3, dtype=np.float32)
    head = PointerHead(identity, identity, log_scale=float(np.log(10)))
    keys = head.keys([[2.0, 0, 0], [0, 5.0, 0]])
    assert head.scores([3.0, 0, 0], keys) == pytest.approx([10, 0])
    assert head.scores([[1.0, 1.0, 0]], keys)[0] == pytest.approx([7.0711, 7.0711], abs=1e-3)


# Records

RECORD = {
    "id": "1",
    "routes": [{"name": "a", "description": "x"}],
    "messages": [{"role": "user", "content": "hi"}],
    "decisions": [{"message": 0, "expected": ["a"]}],
}


def test_conversation_records_are_read_plain_and_packed(tmp_path: Path) -> None:
    line = json.dumps(RECORD) + "\n"
    (tmp_path / "a.jsonl").write_text(line + "\n" + line)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    assert len(list(read_conversations(tmp_path / "a.jsonl"))) == 2
    assert next(read_conversations(tmp_path / "a.jsonl.gz")).decisions[0].expected == ["a"]


@pytest.mark.parametrize(
    ("update", "complaint"),
    [
        ({"decisions": [{"message": 0, "expected": ["b"]}]}, "'b' is not among the routes"),
        ({"decisions": [{"message": 1, "expected": []}]}, "message 1 of 1"),
        ({"decisions": []}, "decisions"),
        ({"routes": [RECORD["routes"][0]] * 2}, "must not repeat"),  # type: ignore[index]
        ({"messages": [{"role": "assistant", "content": "x"}]}, "not a user's"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_bad_records_name_file_and_line(
    tmp_path: Path, update: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(RECORD) + "\n" + json.dumps({**RECORD, **update}) + "\n")
    with pytest.raises(InvalidRecord, match=complaint) as caught:
        list(read_conversations(path))
    assert f"{path}:2" in str(caught.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecord, match="absent"):
        list(read_decisions(tmp_path / "absent.jsonl"))
    (tmp_path / "x.jsonl").write_text("{nope\n")
    with pytest.raises(InvalidRecord, match=r"x\.jsonl:1: not JSON"):
        list(read_decisions(tmp_path / "x.jsonl"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 500)[:-9])
    with pytest.raises(InvalidRecord, match="cut"):
        list(read_decisions(tmp_path / "cut.jsonl.gz"))
