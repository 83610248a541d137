"""Comparing runs: what is there already is kept, and the table is what the reports say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from routing.errors import InvalidRecord
from scripts import experiments
from scripts.experiments import FIRST, LAST, load_experiments, run_experiments

ROWS = """
name: trial
limits: {bench: 7}
rows:
  - {name: one, data: nano-authored, recipe: nano-lora, set: {max_steps: 3}}
  - {name: two, data: nano, recipe: nano-full}
"""


def report(accuracy: float) -> str:
    estimate = {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "n": 9}
    result = {"decider": "x", "metrics": {"turn_accuracy": estimate}}
    file = {"benchmark": "bench", "sha256": "0", "limit": 7, "results": [result]}
    return json.dumps({"format": 2, "files": [file]})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Commands that would be run; what they would write is written."""
    made: list[tuple[str, ...]] = []

    def pointsman(*arguments: str, threads: int | None = None) -> None:
        made.append(arguments)
        values = dict(itertools.pairwise(arguments))
        if arguments[0] == "train":
            folder = Path(values["--output"]) / "checkpoint"
            folder.mkdir(parents=True)
            provenance = {"provenance": {"training": {"trained_tokens": 1234.0}}}
            (folder / "manifest.json").write_text(json.dumps(provenance))
        if arguments[0] == "eval":
            Path(values["--output"]).write_text(report(0.5))

    monkeypatch.setattr(experiments, "_pointsman", pointsman)
    monkeypatch.setattr(experiments, "ROOT", Path("/nowhere"))
    return made


def test_rows_are_made_once_and_written_as_a_table(
    tmp_path: Path, calls: list[tuple[str, ...]]
) -> None:
    (tmp_path / "rows.yaml").write_text(ROWS)
    chosen = load_experiments(tmp_path / "rows.yaml")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{FIRST.format(name='trial')}\nold\n{LAST}\nafter\n")
    bench = tmp_path / "bench.jsonl"
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "bench.json").write_text(report(0.625))
    table = run_experiments(chosen, [bench], tmp_path, None, readme)
    assert [call[:2] for call in calls] == [
        ("data", "make"),
        ("train", "nano-lora"),
        ("eval", str(bench)),
    ]
    assert "max_steps=3" in calls[1]
    assert calls[2][calls[2].index("--limit") + 1] == "7"
    assert "--against" in calls[0]
    lines = table.splitlines()
    assert lines[2] == "| one | nano-lora, max_steps 3 | 1,234 | 50.0 [40.0, 60.0] | 50.0 |"
    assert lines[3] == "| two | nano-full |  | 62.5 [52.5, 72.5] | 62.5 |"
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert table in text
    assert "old" not in text

    calls.clear()
    assert run_experiments(chosen, [bench], tmp_path, None, readme) == table
    assert calls == []


def test_a_row_may_measure_the_run_of_another_in_its_own_way(
    tmp_path: Path, calls: list[tuple[str, ...]]
) -> None:
    measured = (
        "  - {name: three, data: nano-authored, recipe: nano-lora, run_of: one,"
        " measure: {averaged_orders: 2, prior_correction: false}}"
    )
    (tmp_path / "rows.yaml").write_text(
        ROWS.replace("  - {name: two", f"{measured}\n  - {{name: two")
    )
    chosen = load_experiments(tmp_path / "rows.yaml")
    table = run_experiments(chosen, [tmp_path / "bench.jsonl"], tmp_path)
    trained = [call for call in calls if call[0] == "train"]
    assert len(trained) == 2
    last = [call for call in calls if call[0] == "eval"][1]
    assert last[last.index("--checkpoint") + 1] == str(tmp_path / "one" / "run" / "checkpoint")
    assert last[last.index("--averaged-orders") + 1] == "2"
    assert "--no-prior-correction" in last
    assert "1,234" in table.splitlines()[3]

    (tmp_path / "rows.yaml").write_text(
        ROWS.replace(
            "  - {name: two", f"{measured.replace('run_of: one', 'run_of: four')}\n  - {{name: two"
        )
    )
    with pytest.raises(InvalidRecord, match="no row 'four' is trained"):
        load_experiments(tmp_path / "rows.yaml")


def test_bad_files_are_named(tmp_path: Path, calls: list[tuple[str, ...]]) -> None:
    (tmp_path / "rows.yaml").write_text(ROWS.replace("recipe: nano-full", "recipes: x"))
    with pytest.raises(InvalidRecord, match=r"rows\.yaml: rows\.1\.recipe"):
        load_experiments(tmp_path / "rows.yaml")
    (tmp_path / "rows.yaml").write_text(ROWS)
    (tmp_path / "README.md").write_text("no marks")
    chosen = load_experiments(tmp_path / "rows.yaml")
    bench = tmp_path / "bench.jsonl"
    with pytest.raises(InvalidRecord, match="has no marks"):
        run_experiments(chosen, [bench], tmp_path, None, tmp_path / "README.md")
    assert (tmp_path / "README.md").read_text() == "no marks"
