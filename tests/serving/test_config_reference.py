"""The configuration's reference is that of its types, and the command that checks a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts.cli import app
from serving.config_reference import reference, undescribed
from serving.environment import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "configs" / "README.md"
INTERNAL = {"POINTSMAN_UPSTREAM_BASE", "POINTSMAN_UPSTREAM_THREADS"}
"""Between the server and the local upstream that it starts."""


def test_the_committed_reference_is_that_of_the_types() -> None:
    assert COMMITTED.read_text() == reference(), (
        "configs/README.md is out of date: pointsman config reference > configs/README.md"
    )


def test_every_field_is_described() -> None:
    assert undescribed() == []


def test_every_variable_that_the_server_reads_is_described() -> None:
    files = [*(ROOT / "serving").rglob("*.py"), ROOT / "scripts" / "base_model.py"]
    read = {name for f in files for name in re.findall(r'"(POINTSMAN_[A-Z_]+)"', f.read_text())}
    assert read - INTERNAL <= set(VARIABLES)
    for name in VARIABLES:
        assert f"| `{name}` |" in reference()


def test_the_reference_names_types_defaults_and_bounds() -> None:
    rows = reference().splitlines()
    assert any(
        r.startswith("| `port` | whole number, at least 0, at most 65535 | `8080` |") for r in rows
    )
    assert any(r.startswith("| `protocol` | `openai`, `anthropic` | `openai` |") for r in rows)
    assert any(r.startswith("| `routers` | list of [Router](#router) |") for r in rows)
    assert any(r.startswith("| `checkpoint` | path | required |") for r in rows)
    # Every section that a row leads to is there.
    for section in set(re.findall(r"\]\(#([a-z]+)\)", reference())):
        assert any(row.lower() == f"## {section}" for row in rows), section


def test_check_says_what_is_on_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    result = CliRunner().invoke(app, ["config", "check"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "provider openai: on" in lines
    assert "router writing: 6 tasks" in lines
    [line] = [line for line in lines if line.startswith("provider anthropic:")]
    assert "ANTHROPIC_API_KEY" in line
    assert "sk-secret" not in result.output


def test_check_refuses_what_the_server_would(tmp_path: Path) -> None:
    wrong = tmp_path / "serve.yaml"
    wrong.write_text("listen: {prot: 8080}\n")
    result = CliRunner().invoke(app, ["config", "check", str(wrong)])
    assert result.exit_code != 0
    assert "listen.prot" in str(result.exception)
