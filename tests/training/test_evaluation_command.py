"""`pointsman eval` from its options to its reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_data import lines, write_lines
from evaluation_server import fixed, server
from typer.testing import CliRunner

from scripts.cli import app
from training.evaluation.deciders import EvaluationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "made_up.jsonl", lines())


def invoke(*arguments: object) -> str:
    """What the command prints; raises what it raises."""
    told = ["eval", "--checkpoint", "none", *map(str, arguments)]
    result = CliRunner().invoke(app, told)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_options_reach_the_report(file: Path, tmp_path: Path) -> None:
    earlier, report = tmp_path / "earlier.json", tmp_path / "report.json"
    invoke(file, "--baseline", "words", "--limit", 4, "--output", earlier)
    invoke(
        *(file, "--baseline", "words", "--baseline", "first", "--limit", 4),
        *("--orders", 3, "--orders-limit", 1, "--latency", 1, "--compare", earlier),
        *("--plots", tmp_path / "pictures", "--output", report),
    )
    words, first = json.loads(report.read_text())["files"][0]["results"]
    assert (words["orders"]["orders"], words["orders"]["conversations"]) == (3, 1)
    assert words["latency"]["n"] == 1
    assert words["difference"]["paired"]
    assert first["difference"] is None
    assert list((tmp_path / "pictures").glob("*.png"))


def test_the_key_of_the_environment_goes_to_the_prompted_model_and_nowhere_else(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "made-up-key")
    output = tmp_path / "report.json"
    with server(fixed(200, {"choices": [{"message": {"content": "baking"}}]})) as (url, bodies):
        printed = invoke(file, "--prompted", url, "--prompted-model", "m", "--output", output)
    assert {body["key"] for body in bodies} == {"Bearer made-up-key"}
    assert "prompted m" in printed
    assert "made-up-key" not in printed + output.read_text()
    monkeypatch.delenv("OPENAI_API_KEY")
    with server(fixed(200, {"choices": [{"message": {"content": "baking"}}]})) as (url, bodies):
        invoke(file, "--prompted", url, "--prompted-model", "m")
    assert {body["key"] for body in bodies} == {None}


def test_options_that_do_not_go_together_are_refused(file: Path) -> None:
    assert "go together" in invoke(file, "--prompted", "http://host")
    assert "go together" in invoke(file, "--prompted-model", "m")
    assert "unknown baseline 'psychic'" in invoke(file, "--baseline", "psychic")
    with pytest.raises(EvaluationError, match="at least two orders"):
        invoke(file, "--baseline", "first", "--orders", 1)
