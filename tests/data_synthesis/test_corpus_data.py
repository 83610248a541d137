"""The corpora as sources: what is read, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora_files import rows
from making import CORPORA, inputs, make, recipe, records

from data_synthesis.authored.library import load_library
from data_synthesis.recipe import load_recipe
from data_synthesis.sources.opening import open_sources, part
from routing.errors import InvalidRecord

ROOT = Path(__file__).resolve().parents[2]


def test_noisy_rows_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, recipe("metatool"))
    assert all(m["content"] != "gr bl" for r in records(tmp_path) for m in r.messages)


def test_catch_all_tools_are_never_offered(tmp_path: Path) -> None:
    make(tmp_path, recipe("metatool"))
    offered = {route.description for r in records(tmp_path) for route in r.routes}
    assert any("a0" in text for text in offered)
    assert not any("z0" in text for text in offered)


def test_dialogues_that_touch_a_held_out_service_are_not_trained_on(tmp_path: Path) -> None:
    (sgd,) = inputs(tmp_path, recipe("sgd")).sources
    train, validation = part(sgd, 0.2, seed=1)
    held_out = sgd.tasks.keys() - train.tasks.keys()
    assert held_out
    from random import Random

    for number in range(200):
        assert not held_out & set(train.draw(Random(number), 10).tasks)
        # Cut short, a dialogue may not have come to the held-out service yet.
        whole = validation.draw(Random(number), 99)
        assert set(whole.tasks) <= sgd.tasks.keys()
    said = {line.text for n in range(200) for line in train.draw(Random(n), 99).lines}
    only = {line.text for n in range(200) for line in validation.draw(Random(n), 99).lines}
    assert {t for t in said if t.startswith("Find")}.isdisjoint(only)


def test_extra_wordings_are_used(tmp_path: Path) -> None:
    inputs(tmp_path, recipe("clinc"))
    extra = "clinc: {garden_job0: {names: [weeding], descriptions: ['Weed the garden.']}}\n"
    (tmp_path / "wordings.yaml").write_text(extra)
    make(tmp_path, recipe("clinc", held_out_share=0, validation_conversations=0))
    assert any("Weed the garden" in r.description for c in records(tmp_path) for r in c.routes)


@pytest.mark.parametrize(
    ("file", "items", "complaint"),
    [
        ("clinc_train.jsonl.gz", [{"text": "x", "intent": "fly"}], "clinc_train.jsonl.gz:1: unk"),
        ("clinc_train.jsonl.gz", [{"text": "x"}], "clinc_train.jsonl.gz:1: malformed"),
        ("sgd_train.jsonl.gz", [{"id": 1, "turns": 3}], "sgd_train.jsonl.gz:1: malformed"),
    ],
)
def test_malformed_corpora_name_file_and_line(
    tmp_path: Path, file: str, items: list[Any], complaint: str
) -> None:
    inputs(tmp_path, recipe(*CORPORA))
    rows(tmp_path / "corpora" / file, items)
    with pytest.raises(InvalidRecord, match=complaint):
        inputs(tmp_path, recipe(*CORPORA))


def test_unknown_sources_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecord, match=r"sources\.reddit: known are authored, clinc"):
        inputs(tmp_path, recipe("reddit"))
    (tmp_path / "corpora" / "sgd_intents.json").unlink()
    with pytest.raises(InvalidRecord, match="sgd_intents"):
        inputs(tmp_path, recipe("sgd"))
    library = inputs(tmp_path, recipe("clinc")).library
    with pytest.raises(InvalidRecord, match="needs the folder of the corpora"):
        open_sources(recipe("clinc"), library, None, tmp_path / "wordings.yaml")


def test_the_real_corpora_are_read(corpora_folder: Path) -> None:
    library = load_library(ROOT / "configs" / "authored", ROOT / "configs" / "taxonomy")
    chosen = load_recipe(ROOT / "configs" / "data" / "nano-corpus.yaml")
    wordings = ROOT / "configs" / "data" / "wordings.yaml"
    sources = open_sources(chosen, library, corpora_folder, wordings)
    assert {s.name: len(s.tasks) for s in sources} == {"clinc": 100, "metatool": 139, "sgd": 53}
