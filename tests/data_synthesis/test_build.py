"""Builds: bytes repeat, cut-off runs go on, gates hold, nothing of a benchmark gets in."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from making import CORPORA, digests, inputs, make, recipe, records

from data_synthesis.build import GatesFailed, build
from data_synthesis.recipe import load_recipe
from routing.errors import InvalidRecord
from routing.records import read_decisions

ROOT = Path(__file__).resolve().parents[2]
ONE_PROCESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from making import make, recipe
make(Path(sys.argv[2]), recipe(conversations=1200, shard_conversations=20), sys.argv[3])
"""


def test_bytes_depend_on_recipe_and_seed_and_not_on_the_number_of_processes(
    tmp_path: Path,
) -> None:
    make(tmp_path, recipe(), "a", workers=1)
    make(tmp_path, recipe(), "b", workers=3)
    make(tmp_path, recipe(seed=4), "c")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a") != digests(tmp_path / "c")
    manifests = [json.loads((tmp_path / x / "dataset.json").read_text()) for x in "abc"]
    assert manifests[0] == manifests[1]
    assert manifests[0]["sha256"] != manifests[2]["sha256"]


def test_a_run_killed_at_random_points_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = recipe(conversations=1200, shard_conversations=20)
    make(tmp_path, whole, "whole")
    command = [sys.executable, "-c", ONE_PROCESS, str(Path(__file__).parent), str(tmp_path), "cut"]
    rng = random.Random(5)
    kills = 0
    state = tmp_path / "cut" / ".state"
    for _ in range(3):
        before = len(list(state.glob("*.json")))
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        deadline = time.monotonic() + 60
        wanted = before + rng.randint(1, 25)
        while len(list(state.glob("*.json"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += not (tmp_path / "cut" / "dataset.json").exists()
    assert kills
    make(tmp_path, whole, "cut")
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")
    assert not state.exists()
    assert not list((tmp_path / "cut").rglob("*.part"))
    # Asked for again, what is there is taken.
    assert make(tmp_path, whole, "cut")["passed"]


def test_another_recipe_does_not_touch_data_that_is_there(tmp_path: Path) -> None:
    make(tmp_path, recipe())
    before = digests(tmp_path / "out")
    with pytest.raises(InvalidRecord, match="another recipe"):
        make(tmp_path, recipe(seed=9))
    assert digests(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("not data")
    with pytest.raises(InvalidRecord, match="not empty"):
        make(tmp_path, recipe(), "mine")


@pytest.fixture(scope="module")
def both_forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a build in both forms, for tests that only read it."""
    folder = tmp_path_factory.mktemp("both")
    make(folder, recipe(forms=["conversation", "decision"]))
    return folder


def test_every_label_is_an_offered_route_that_covers_the_task(both_forms: Path) -> None:
    sources = inputs(both_forms, recipe()).sources
    wording = {key: task.wording for s in sources for key, task in s.tasks.items()}
    covers: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for key, task in source.tasks.items():
            for description in task.wording.descriptions:
                covers[description.rstrip(".")].add(key)
        for unit in source.coarse:
            for description in unit.wording.descriptions:
                covers[description.rstrip(".")] |= unit.covers
    checked = unlabelled = 0
    for record in records(both_forms):
        offered = {
            route.name: {
                key
                for text, keys in covers.items()
                if route.description.rstrip(".").startswith(text)
                for key in keys
            }
            for route in record.routes
        }
        for label in record.decisions:
            tasks = set(label.tags["tasks"])
            assert tasks <= wording.keys()
            for name in label.expected:
                assert tasks & offered[name], (record.id, name)
                checked += 1
            if tasks and not label.expected:
                unlabelled += 1
                # Nothing that is offered is for what was said.
                assert not any(tasks & keys for keys in offered.values()), record.id
    assert checked > 500
    assert unlabelled > 50


def test_right_routes_stand_everywhere_and_are_sometimes_missing_or_two(tmp_path: Path) -> None:
    facts = make(tmp_path, recipe(conversations=600))["parts"]["train"]
    assert 0.08 < facts["none_share"] < 0.45
    assert facts["several_share"] > 0.01
    assert facts["position_p"] > 1e-4
    counts: Counter[int] = Counter(len(record.routes) for record in records(tmp_path))
    assert min(counts) >= 2
    assert max(counts) <= 12


def test_validation_asks_for_tasks_that_training_never_sees(tmp_path: Path) -> None:
    make(tmp_path, recipe("authored", "clinc", "metatool"))
    asked: dict[str, set[str]] = {}
    for part in ("train", "validation"):
        asked[part] = {
            task
            for record in records(tmp_path, part)
            for label in record.decisions
            for task in label.tags["tasks"]
        }
    assert asked["validation"]
    assert not asked["validation"] & asked["train"]


def test_what_shares_words_with_a_benchmark_is_left_out(tmp_path: Path) -> None:
    chosen = recipe(*CORPORA, conversations=200, contamination_gram=4)
    make(tmp_path, chosen, "before")
    victim = next(
        m["content"]
        for record in records(tmp_path, name="before")
        for m in record.messages
        if m["role"] == "user" and m["content"].startswith("please do") and "take" in m["content"]
    )
    benchmark = tmp_path / "benchmark.jsonl"
    said = {"role": "user", "content": f"Well, {victim.upper()}!"}
    benchmark.write_text(json.dumps({"messages": [said]}) + "\n")
    facts = make(tmp_path, chosen, "after", benchmarks=[benchmark])["parts"]["train"]
    assert facts["contaminated_dropped"] > 0
    after = [m["content"] for r in records(tmp_path, name="after") for m in r.messages]
    assert victim not in after
    benchmark.write_text('{"id": 1}\n')
    with pytest.raises(InvalidRecord, match=r"benchmark.jsonl:1: no messages"):
        make(tmp_path, chosen, "bad", benchmarks=[benchmark])


def test_duplicates_are_dropped_whichever_shard_they_are_in(tmp_path: Path) -> None:
    chosen = recipe("clinc", duplicates={"bands": 1, "rows": 64}, shard_conversations=15)
    facts = make(tmp_path, chosen)["parts"]["train"]
    assert facts["duplicates_dropped"] > 0
    said = [
        tuple(m["content"].lower().split() for m in r.messages if m["role"] == "user")
        for r in records(tmp_path)
    ]
    texts = Counter(str(sorted(s)) for s in said)
    assert max(texts.values()) == 1


def test_data_that_fails_a_gate_fails_the_build(tmp_path: Path) -> None:
    chosen = recipe(gates={"none_share": [0.9, 1], "task_share": 1, "top_grams": 1})
    for _ in range(2):  # and goes on failing when asked for again
        with pytest.raises(GatesFailed, match="none_share is"):
            make(tmp_path, chosen)
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert manifest["passed"] is False


def test_the_manifest_and_the_card_say_what_was_written(both_forms: Path) -> None:
    manifest = json.loads((both_forms / "out" / "dataset.json").read_text())
    found = records(both_forms)
    facts = manifest["parts"]["train"]
    assert facts["conversations"] == len(found)
    assert facts["decisions"] == sum(len(record.decisions) for record in found)
    assert manifest["sources"]["sgd"]["licence"] == "CC-BY-SA-4.0"
    decisions = list(read_decisions(both_forms / "out" / "decisions" / "train"))
    assert len(decisions) == facts["decisions"]
    assert all(d.messages[-1]["role"] == "user" for d in decisions)
    card = (both_forms / "out" / "README.md").read_text()
    assert str(facts["decisions"]) in card
    for picture in ("routes", "kind", "domains"):
        assert (both_forms / "out" / "pictures" / f"{picture}.png").stat().st_size > 1000
        assert f"pictures/{picture}.png" in card


def test_datasets_loads_both_forms(both_forms: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    manifest = json.loads((both_forms / "out" / "dataset.json").read_text())
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(both_forms / "out"), "conversations", cache_dir=cache)
    facts = manifest["parts"]
    assert {name: len(part) for name, part in loaded.items()} == {
        name: part["conversations"] for name, part in facts.items()
    }
    called = [m for row in loaded["train"] for m in row["messages"] if m["tool_calls"]]
    assert called[0]["tool_calls"][0]["function"]["name"] == "ls"
    decisions = datasets.load_dataset(str(both_forms / "out"), "decisions", cache_dir=cache)
    assert len(decisions["train"]) == facts["train"]["decisions"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: x", "seed"),
        ("nome: x", "recipe.yaml"),
        ("[", "cannot read recipe"),
        (
            "{name: x, seed: 1, conversations: 1, validation_conversations: 0, "
            "sources: {authored: {weight: 1}}, operators: [{op: shuffle_routes}]}",
            "offer_routes is needed",
        ),
        (
            "{name: x, seed: 1, conversations: 1, validation_conversations: 0, "
            "sources: {authored: {weight: 1}}, operators: [{op: shufle_routes}]}",
            "operators.0",
        ),
    ],
)
def test_bad_recipes_name_the_field(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRecord, match=complaint):
        load_recipe(path)


@pytest.mark.parametrize("name", ["nano", "nano-authored", "nano-corpus", "standard", "large"])
def test_released_recipes_can_be_read(name: str) -> None:
    assert load_recipe(ROOT / "configs" / "data" / f"{name}.yaml").name == name


def test_build_reports_progress(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    chosen = recipe(validation_conversations=0)
    build(chosen, inputs(tmp_path, chosen), tmp_path / "out", lambda *facts: seen.append(facts))
    assert seen[0] == ("train", 0, 5)
    assert seen[-1] == ("train", 5, 5)
