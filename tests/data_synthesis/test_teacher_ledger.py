"""Nothing is paid for twice, and never more than the cap."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from teacher_server import ROOT, TeacherServer, run, write_recipe

from data_synthesis.sources.stored import read_stored
from data_synthesis.teacher.errors import TeacherError
from data_synthesis.teacher.ledger import Ledger
from routing.errors import InvalidRecord

PRICE = (100 * 1 + 200 * 2) / 1e6
"""Money for one answer of the scripted server."""


def lines(ledger: Path) -> list[bytes]:
    return ledger.read_bytes().splitlines() if ledger.exists() else []


def test_a_killed_run_goes_on_without_paying_twice(server: TeacherServer, tmp_path: Path) -> None:
    asked = itertools.count(1)

    def answers_seven(request: web.Request, prompt: str) -> Any:
        return None if next(asked) <= 7 else asyncio.sleep(60)

    server.always = answers_seven
    recipe = write_recipe(tmp_path, server.url, dialogues_per_topic=8, concurrency=3)
    ledger = tmp_path / "out" / "ledger.jsonl"
    code = (
        "import sys; from pathlib import Path; from data_synthesis.teacher.run import run_teacher;"
        "run_teacher(Path(sys.argv[1]), Path(sys.argv[2]), lambda status: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, recipe, tmp_path / "out"], cwd=ROOT)
    try:
        give_up = time.monotonic() + 60
        while len(lines(ledger)) < 7 or len(server.bodies) < 10:
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert len(lines(ledger)) == 7
    assert not (tmp_path / "out" / "source.json").exists()

    server.always = None
    paid = lines(ledger)
    facts = run(recipe, tmp_path / "out")
    assert facts["counts"]["dialogues"] == 8
    # Only the three calls that were under way are asked a second time.
    assert len(server.bodies) == 10 + 8 * 2 - 7
    assert lines(ledger)[:7] == paid
    keys = [json.loads(line)["key"] for line in lines(ledger)]
    assert len(set(keys)) == len(keys) == 16


def test_the_cap_holds_and_raising_it_goes_on(server: TeacherServer, tmp_path: Path) -> None:
    # The most that one call may cost is near four times what it does cost.
    cap = 9 * PRICE
    recipe = write_recipe(tmp_path, server.url, dialogues_per_topic=8, spend_cap=cap)
    facts = run(recipe, tmp_path / "out")
    asked = len(server.bodies)
    assert 2 < asked < 9
    assert facts["spend"]["money"] == pytest.approx(asked * PRICE)
    assert facts["spend"]["money"] <= cap
    assert "spend_cap" in facts["stopped"]
    assert "raise the cap in the recipe and run the same command again" in facts["stopped"]
    assert not facts["complete"]
    assert 0 < facts["counts"]["dialogues"] < 8
    assert len(read_stored(tmp_path / "out").dialogues) == facts["counts"]["dialogues"]

    assert run(recipe, tmp_path / "out")["stopped"] == facts["stopped"]
    assert len(server.bodies) == asked

    recipe = write_recipe(tmp_path, server.url, dialogues_per_topic=8, spend_cap=1.0)
    facts = run(recipe, tmp_path / "out")
    assert facts["complete"]
    assert facts["counts"]["dialogues"] == 8
    assert len(server.bodies) == 16
    assert facts["spend"]["money"] == pytest.approx(16 * PRICE)


def test_tokens_are_capped_where_prices_are_unknown(server: TeacherServer, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, server.url, prices=None, spend_cap=None, token_cap=4000, dialogues_per_topic=8
    )
    facts = run(recipe, tmp_path / "out")
    assert "token_cap 4000" in facts["stopped"]
    assert facts["spend"]["money"] is None
    used = facts["spend"]["models"]["writer"]
    assert used["input_tokens"] + used["output_tokens"] == 300 * len(server.bodies) <= 4000


def test_a_refusal_ends_the_waiting_of_the_others(server: TeacherServer, tmp_path: Path) -> None:
    server.faults = [
        *[lambda request, prompt: web.Response(status=429, headers={"Retry-After": "60"})] * 4,
        lambda request, prompt: web.Response(status=403),
    ]
    recipe = write_recipe(tmp_path, server.url, dialogues_per_topic=9, concurrency=5)
    started = time.monotonic()
    with pytest.raises(TeacherError, match="status 403"):
        run(recipe, tmp_path / "out")
    assert time.monotonic() - started < 30
    assert len(server.bodies) == 5


def test_a_torn_last_line_is_dropped(server: TeacherServer, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, server.url)
    run(recipe, tmp_path / "out")
    ledger = tmp_path / "out" / "ledger.jsonl"
    whole = ledger.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for torn in (last[:-1], last[:50], b"\0" * 40 + b"\n"):
        ledger.write_bytes(whole[: -len(last)] + torn)
        asked = len(server.bodies)
        assert run(recipe, tmp_path / "out")["complete"]
        assert len(server.bodies) == asked + 1
        assert sorted(lines(ledger)) == sorted(whole.splitlines())


def test_a_broken_line_before_the_last_is_an_error(server: TeacherServer, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, server.url)
    run(recipe, tmp_path / "out")
    ledger = tmp_path / "out" / "ledger.jsonl"
    broken = lines(ledger)
    broken[2] = broken[2][:-5]
    ledger.write_bytes(b"\n".join(broken) + b"\n")
    with pytest.raises(InvalidRecord, match=r"ledger.jsonl:3: not a line of a ledger"):
        run(recipe, tmp_path / "out")


def test_two_runs_cannot_share_a_ledger(server: TeacherServer, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, server.url)
    with (
        Ledger(tmp_path / "out" / "ledger.jsonl"),
        pytest.raises(TeacherError, match="in use by another run"),
    ):
        run(recipe, tmp_path / "out")
    assert not server.bodies


def test_a_changed_prompt_is_asked_anew(server: TeacherServer, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, server.url)
    run(recipe, tmp_path / "out")
    folder = tmp_path / "prompts"
    folder.mkdir()
    for path in (ROOT / "configs/teacher/prompts").iterdir():
        (folder / path.name).write_text(path.read_text())
    (folder / "judge.md").write_text((folder / "judge.md").read_text() + "\nBe quick.\n")
    facts = run(write_recipe(tmp_path, server.url, prompts=str(folder)), tmp_path / "out")
    assert len(server.bodies) == 6 + 3  # what was written is kept, and judged again
    assert facts["spend"]["money"] == pytest.approx(9 * PRICE)
