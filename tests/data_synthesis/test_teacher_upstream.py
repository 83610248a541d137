"""For real: the project's own local upstream as the teacher. It writes poor JSON, and knows it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from teacher_server import ROOT, write_recipe

from data_synthesis.sources.stored import read_stored
from data_synthesis.teacher.run import run_teacher


@pytest.fixture
def upstream(base_folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "serving.local_upstream", "--port", str(port)]
    process = subprocess.Popen([*command, "--base", str(base_folder), "--threads", "1"], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        while not _ready(f"{url}/healthz"):
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_a_small_model_ends_cleanly(upstream: str, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        upstream,
        model="smollm2-135m-instruct-precise",
        key_variable=None,
        prices=None,
        spend_cap=None,
        token_cap=20000,
        topics=["baking bread"],
        dialogues_per_topic=1,
        concurrency=1,
        attempts=1,
        timeout_s=120,
        max_tokens=48,
        temperature=0.0,
    )
    facts = run_teacher(recipe, tmp_path / "out", lambda status: None)
    corpus = read_stored(tmp_path / "out")
    counts, turned_down = facts["counts"], facts["turned_down"]
    assert facts["stopped"] is None
    assert counts["calls"] >= 2
    assert counts["unfinished"] == 0
    assert facts["spend"]["models"]["smollm2-135m-instruct-precise"]["output_tokens"] > 0
    assert len(corpus.dialogues) == counts["dialogues"]
    # A dialogue for each topic that has tasks: it passed, or was lost for counted reasons.
    assert counts["dialogues"] + turned_down.get("lost_dialogues", 0) == counts["topics"]
    without_tasks = sum(turned_down.get(f"gave_up_{stage}", 0) for stage in ("policies", "refine"))
    assert counts["topics"] + without_tasks == 2
    reasons = sum(n for name, n in turned_down.items() if name.startswith(("unread", "rejected_d")))
    assert reasons > 0 or counts["dialogues"] == 2
