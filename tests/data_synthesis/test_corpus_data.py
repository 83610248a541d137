"""Routing data from corpora: labels stay true, nothing leaks into validation, bytes repeat."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from corpora_files import rows, write_corpora

from data_synthesis.build import build, read_corpora, split
from data_synthesis.casting import Cast
from data_synthesis.corpus import Corpus
from data_synthesis.recipe import DataRecipe, load_recipe
from routing.errors import InvalidRecord
from routing.records import ConversationRecord, read_conversations

ROOT = Path(__file__).resolve().parents[2]


def recipe(**updates: Any) -> DataRecipe:
    values: dict[str, Any] = {
        "name": "t",
        "seed": 3,
        "conversations": 400,
        "validation_conversations": 60,
        "corpora": {"clinc": 1, "metatool": 1, "sgd": 1},
        "route_counts": [{"low": 3, "high": 8}],
        "held_out_share": 0.2,
    }
    return DataRecipe.model_validate({**values, **updates})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_corpora(tmp_path / "corpora")


@pytest.fixture
def wordings(tmp_path: Path) -> Path:
    path = tmp_path / "wordings.yaml"
    extra = {
        f"{domain}_job0": {"names": [f"{domain}_weeding"], "descriptions": [f"Weed the {domain}."]}
        for domain in ("garden", "kitchen", "office")
    }
    path.write_text(yaml.safe_dump({"clinc": extra}))
    return path


@pytest.fixture
def corpora(folder: Path, wordings: Path) -> list[Corpus]:
    return read_corpora(recipe(), folder, wordings)


@pytest.fixture
def records(corpora: list[Corpus], tmp_path: Path) -> list[ConversationRecord]:
    build(recipe(), corpora, tmp_path / "out")
    return list(read_conversations(tmp_path / "out" / "train.jsonl.gz"))


def test_every_label_is_the_offered_wording_of_the_task_asked_for(
    records: list[ConversationRecord], corpora: list[Corpus]
) -> None:
    wordings = {key: task.wording for corpus in corpora for key, task in corpus.tasks.items()}
    checked = 0
    for record in records:
        if record.tags["routes"] == "coarse":
            continue
        offered = {route.name: route.description.rstrip(".") for route in record.routes}
        for label in record.decisions:
            for name in label.expected:
                meant = [
                    key
                    for key in label.tags["tasks"]
                    if offered[name] in {d.rstrip(".") for d in wordings[key].descriptions}
                ]
                assert meant, (record.id, name)
                checked += 1
            if len(label.expected) < len(set(label.tags["tasks"])):
                missing = [
                    key
                    for key in label.tags["tasks"]
                    if not {d.rstrip(".") for d in wordings[key].descriptions}
                    & set(offered.values())
                ]
                assert missing, record.id
    assert checked > 500


def test_conflicting_tasks_are_never_offered_together(
    records: list[ConversationRecord], corpora: list[Corpus]
) -> None:
    cast = Cast(corpora)
    by_description = {
        description.rstrip("."): key
        for key, task in cast.tasks.items()
        for description in task.wording.descriptions
    }
    for record in records:
        if record.tags["routes"] == "coarse":
            continue
        keys = [by_description[route.description.rstrip(".")] for route in record.routes]
        for i, one in enumerate(keys):
            assert all(cast.compatible(one, other) for other in keys[i + 1 :]), record.id
    offered = {r.description for record in records for r in record.routes}
    assert not any("Tool z0" in description for description in offered)


def test_noisy_rows_are_left_out(records: list[ConversationRecord]) -> None:
    assert all(m["content"] != "gr bl" for record in records for m in record.messages)


def test_right_routes_stand_everywhere_and_are_sometimes_missing_or_two(
    records: list[ConversationRecord],
) -> None:
    places: Counter[int] = Counter()
    counts: Counter[str] = Counter()
    for record in records:
        names = [route.name for route in record.routes]
        for label in record.decisions:
            counts["none" if not label.expected else str(len(label.expected))] += 1
            if len(names) >= 6 and len(label.expected) == 1:
                places[names.index(label.expected[0]) * 3 // len(names)] += 1
    total = sum(counts.values())
    assert 0.08 < counts["none"] / total < 0.4
    assert counts["2"] > 10
    thirds = [places[i] / sum(places.values()) for i in range(3)]
    assert max(thirds) < 0.45


def test_validation_asks_for_tasks_that_training_never_sees(
    corpora: list[Corpus], tmp_path: Path
) -> None:
    build(recipe(), corpora, tmp_path / "out")
    asked: dict[str, set[str]] = defaultdict(set)
    said: dict[str, set[str]] = defaultdict(set)
    for part in ("train", "validation"):
        for record in read_conversations(tmp_path / "out" / f"{part}.jsonl.gz"):
            for label in record.decisions:
                asked[part] |= set(label.tags["tasks"])
                if label.tags["kind"] == "request":
                    said[part].add(record.messages[label.message]["content"].lower())
    requests = {key for key in asked["validation"] if not key.startswith("sgd")}
    assert requests
    assert not requests & asked["train"]
    assert not said["validation"] & said["train"]


def test_dialogues_that_touch_a_held_out_service_are_not_trained_on(corpora: list[Corpus]) -> None:
    sgd = next(corpus for corpus in corpora if corpus.name == "sgd")
    train, validation = split(sgd, 0.2, seed=1)
    assert train.dialogues
    assert validation.dialogues
    assert not {d.id for d in train.dialogues} & {d.id for d in validation.dialogues}
    assert all(set(d.tasks) <= train.tasks.keys() for d in train.dialogues)
    assert all(not set(d.tasks) <= train.tasks.keys() for d in validation.dialogues)


def test_the_same_recipe_gives_the_same_bytes(corpora: list[Corpus], tmp_path: Path) -> None:
    def digest(name: str, **updates: Any) -> str:
        build(recipe(conversations=40, **updates), corpora, tmp_path / name)
        return hashlib.sha256((tmp_path / name / "train.jsonl.gz").read_bytes()).hexdigest()

    assert digest("a") == digest("b") != digest("c", seed=4)


def test_the_manifest_counts_what_was_written(corpora: list[Corpus], tmp_path: Path) -> None:
    manifest = build(recipe(), corpora, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == manifest
    records = list(read_conversations(tmp_path / "out" / "train.jsonl.gz"))
    facts = manifest["files"]["train.jsonl.gz"]
    assert facts["conversations"] == len(records) == 400
    assert facts["decisions"] == sum(len(record.decisions) for record in records)
    assert manifest["sources"]["sgd"]["licence"] == "CC-BY-SA-4.0"


def test_extra_wordings_are_used(records: list[ConversationRecord]) -> None:
    assert any(route.description.startswith("Weed the") for r in records for route in r.routes)


@pytest.mark.parametrize(
    ("file", "items", "complaint"),
    [
        ("clinc_train.jsonl.gz", [{"text": "x", "intent": "fly"}], "clinc_train.jsonl.gz:1: unk"),
        ("clinc_train.jsonl.gz", [{"text": "x"}], "clinc_train.jsonl.gz:1: malformed"),
        ("sgd_train.jsonl.gz", [{"id": 1, "turns": 3}], "sgd_train.jsonl.gz:1: malformed"),
    ],
)
def test_malformed_corpora_name_file_and_line(
    folder: Path, wordings: Path, file: str, items: list[Any], complaint: str
) -> None:
    rows(folder / file, items)
    with pytest.raises(InvalidRecord, match=complaint):
        read_corpora(recipe(), folder, wordings)


def test_unknown_corpus_and_missing_files_are_named(folder: Path, wordings: Path) -> None:
    with pytest.raises(InvalidRecord, match="known corpora are"):
        read_corpora(recipe(corpora={"reddit": 1}), folder, wordings)
    (folder / "sgd_intents.json").unlink()
    with pytest.raises(InvalidRecord, match="sgd_intents"):
        read_corpora(recipe(), folder, wordings)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: x", "seed"),
        ("nome: x", "recipe.yaml"),
        ("[", "cannot read recipe"),
    ],
)
def test_bad_recipes_name_the_field(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRecord, match=complaint):
        load_recipe(path)


def test_the_released_recipe_runs_on_the_real_corpora(corpora_folder: Path, tmp_path: Path) -> None:
    released = load_recipe(ROOT / "configs" / "data" / "nano-corpus.yaml")
    small = released.model_copy(update={"conversations": 120, "validation_conversations": 20})
    real = read_corpora(small, corpora_folder, ROOT / "configs" / "data" / "wordings.yaml")
    assert {corpus.name: len(corpus.tasks) for corpus in real} == {
        "clinc": 100,
        "metatool": 139,
        "sgd": 53,
    }
    facts = build(small, real, tmp_path / "out")["files"]["train.jsonl.gz"]
    assert facts["decisions"] > 4 * facts["conversations"]
