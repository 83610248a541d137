"""Exports: whole models that others load and that decide as training did, or none at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exporting import export_by_command, exportable, write_examples
from routing_data import records
from safetensors.torch import load_file, save_file
from tiny import TinyCheckpoint, make_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from routing.decision import Decision
from routing.manifest import load_manifest
from scripts import export_command
from training.export import Agreement, ExportRefused, agreement, export, refuse_disagreement
from training.scoring import ModelDecider


@pytest.fixture
def adapter(tmp_path: Path) -> TinyCheckpoint:
    return exportable(tmp_path / "adapter")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    return write_examples(tmp_path / "examples.jsonl")


def decisions(folder: Path, base: Path | None) -> list[Decision]:
    decider = ModelDecider.from_checkpoint(folder, base)
    return [decision for each in decider.decide_all(records(8)) for decision in each]


def test_an_export_is_a_whole_model_that_decides_as_its_checkpoint(
    adapter: TinyCheckpoint, tmp_path: Path
) -> None:
    manifest = export(adapter.folder, adapter.base, tmp_path / "out")
    assert manifest.weights == "merged"
    assert load_manifest(tmp_path / "out") == manifest
    names = {path.name for path in (tmp_path / "out").iterdir()}
    wanted = {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"}
    assert wanted | {"pointer.safetensors", "README.md", "manifest.json"} <= names
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.use_cache
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("hello")
    found = agreement(
        "x", decisions(adapter.folder, adapter.base), decisions(tmp_path / "out", None)
    )
    assert (found.decisions, found.same_choice) == (24, 1.0)
    assert found.largest_difference < 1e-4


def test_a_mixture_is_exported_too(tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "moe", architecture="qwen3_moe", weights="merged")
    export(made.folder, None, tmp_path / "out", "bfloat16")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert len(decisions(tmp_path / "out", None)) == 24


def test_weights_that_learnt_nothing_are_refused(adapter: TinyCheckpoint, tmp_path: Path) -> None:
    path = adapter.folder / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({k: v * 0 if "lora_B" in k else v for k, v in weights.items()}, path)
    manifest = load_manifest(adapter.folder, verify=False)
    from routing.manifest import file_sha256

    files = {**manifest.files, path.name: file_sha256(path)}
    manifest.model_copy(update={"files": files}).save(adapter.folder)
    with pytest.raises(ExportRefused, match="nothing was learnt"):
        export(adapter.folder, adapter.base, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(adapter: TinyCheckpoint, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ExportRefused, match="not empty"):
        export(adapter.folder, adapter.base, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_readers_that_decide_otherwise_stop_an_export() -> None:
    one = Decision({"a": 0.9, "none": 0.1}, "a", ["a"], 0.9)
    other = Decision({"a": 0.4, "none": 0.6}, None, [], 0.6)
    found = agreement("vLLM", [one, one], [one, other])
    assert found == Agreement("vLLM", 2, 0.5, 0.5)
    with pytest.raises(ExportRefused, match=r"vLLM agrees on 50\.0%"):
        refuse_disagreement(found)
    moved = Agreement("vLLM", 2, 1.0, 0.05)
    with pytest.raises(ExportRefused):
        refuse_disagreement(moved)
    refuse_disagreement(moved, exact=False)


def test_the_command_compares_the_readers_and_prints_it(
    adapter: TinyCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM, which starts once for all tests that need it, is asked in theirs."""
    monkeypatch.setattr(export_command, "vllm_is_installed", lambda: False)
    printed = export_by_command(adapter, tmp_path)
    assert "transformers: same choice in 100.0% of 24 decisions" in printed
    assert "the embedded engine: same choice in 100.0% of 24" in printed
    assert "vLLM" not in printed


def test_soft_targets_are_a_distribution_for_each_decision(
    adapter: TinyCheckpoint, examples: Path, tmp_path: Path
) -> None:
    from training.data import read_soft_targets
    from training.soften import soften

    count = soften(adapter.folder, adapter.base, examples, tmp_path / "soft.jsonl")
    read = read_soft_targets(tmp_path / "soft.jsonl")
    assert count == sum(len(each) for each in read.values()) == 24
    for record in records(8):
        for label in record.decisions:
            shares = read[record.id][label.message]
            assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)
            assert set(shares) == {*(route.name for route in record.routes), "none"}
