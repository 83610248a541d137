"""Our server with all that an owner may switch on: keys, limits, budgets, sessions, records."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from scripts.bench.gateway.mock import Mock
from scripts.bench.gateway.stacks import Prepare, Stack, our_server
from scripts.places import ROOT

LIMITS = {
    "--requests-per-minute": 2 * 10**9,
    "--tokens-per-minute": 2 * 10**9,
    "--monthly-budget": 10**9,
}
"""Of the key: checked and settled with each request, and never reached."""
STORAGES = ("SQLite", "PostgreSQL")


def full_name(storage: str, workers: int) -> str:
    """As the row is called."""
    return f"pointsman, all on, {storage}" + (f", {workers} workers" if workers > 1 else "")


def all_on(url: str, storage: str, workers: int) -> Prepare:
    """With the database at `url`; an empty one, whose tables and key are made here."""

    def prepare(mock: Mock, folder: Path, cache: Path) -> Stack:
        name = full_name(storage, workers)
        sections = {
            "storage": {"url": url},
            "access": {"keyless": "never"},
            "records": {"enabled": True},
        }
        stack = our_server(mock, folder, name, workers=workers, sections=sections)
        environ = {**stack.environ, "POINTSMAN_KEY_SECRET": secrets.token_hex(32)}
        key = _new_key(folder / f"{name}.yaml", environ)
        calls = {
            kind: replace(call, headers={**call.headers, "authorization": f"Bearer {key}"})
            for kind, call in stack.calls.items()
        }
        return replace(stack, calls=calls, environ=environ)

    return prepare


def _new_key(config: Path, environ: dict[str, str]) -> str:
    limits = [word for name, value in LIMITS.items() for word in (name, str(value))]
    command = [sys.executable, "-m", "scripts.cli", "keys", "create", "--name", "bench"]
    made = subprocess.run(
        [*command, "--config", str(config), *limits],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise SystemExit(f"no key could be made: {made.stderr.strip()[-300:]}")
    return made.stdout.strip()
