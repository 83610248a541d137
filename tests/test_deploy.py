"""The container file and the systemd unit name files, commands and variables that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts.cli import app
from serving.api import health
from serving.config_listen import DrainConfig
from serving.environment import VARIABLES
from serving.stopping import LAST_WORDS_S
from serving.workers.supervisor import ENGINE_STOP_S

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "scripts" / "deploy"
CONTAINERFILE = DEPLOY / "Containerfile"


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each, continued lines joined."""
    lines = [x for x in CONTAINERFILE.read_text().splitlines() if not x.lstrip().startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(x.split(None, 1)[0], x.split(None, 1)[1]) for x in text.splitlines() if x.strip()]


def final_stage() -> dict[str, str]:
    steps = instructions()
    last = max(index for index, (name, _) in enumerate(steps) if name == "FROM")
    return dict(steps[last:])


def unit() -> dict[str, list[str]]:
    """Values by directive."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "pointsman.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_the_image_is_made_of_what_there_is() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied: set[str] = set()
    for name, arguments in instructions():
        if name == "COPY" and not arguments.startswith("--from"):
            copied |= set(arguments.split()[:-1])
    assert copied == allowed
    assert all((ROOT / each).exists() for each in copied)
    packages = re.search(r"include = \[(.*)\]", (ROOT / "pyproject.toml").read_text())
    assert packages is not None
    assert set(re.findall(r'"([a-z_]+)\*"', packages[1])) <= copied
    [run] = [x for n, x in instructions() if n == "RUN" and "install.sh" in x]
    script = run.split()[0]
    assert (ROOT / script).stat().st_mode & 0o111


def test_the_image_serves_as_nobody_special_and_is_asked_how_it_is() -> None:
    stage = final_stage()
    assert stage["USER"] not in ("root", "0")
    environment = dict(pair.split("=", 1) for pair in stage["ENV"].split())
    assert environment["POINTSMAN_PORT"] == stage["EXPOSE"]
    assert {n for n in environment if n.startswith("POINTSMAN")} <= set(VARIABLES)
    config = environment["POINTSMAN_CONFIG"].removeprefix("/opt/pointsman/")
    assert (ROOT / config).is_file()
    asked = re.search(r"/[a-z]+z", stage["HEALTHCHECK"])
    assert asked is not None
    assert asked[0] in {route.path for route in health.routes.routes}  # type: ignore[attr-defined]
    assert json.loads(stage["ENTRYPOINT"]) == ["pointsman"]
    help_text = CliRunner().invoke(app, [*json.loads(stage["CMD"]), "--help"])
    assert help_text.exit_code == 0, help_text.output


def test_the_service_has_time_to_drain() -> None:
    found = unit()
    drain = DrainConfig()
    needed = drain.delay_s + drain.timeout_s + 4 * LAST_WORDS_S + ENGINE_STOP_S
    assert float(found["TimeoutStopSec"][0]) > needed
    assert found["KillMode"] == ["mixed"]
    assert found["KillSignal"] == ["SIGTERM"]
    program, *arguments = found["ExecStart"][0].split()
    assert program.endswith("/.venv/bin/pointsman")
    assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0
    variables = {pair.split("=", 1)[0] for pair in found["Environment"]}
    assert variables <= set(VARIABLES)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "pointsman.service").read_text()
    copy = tmp_path / "pointsman.service"
    copy.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", text, flags=re.MULTILINE))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True
    )
    complaints = [x for x in result.stderr.splitlines() if "pointsman.service" in x]
    assert not complaints
