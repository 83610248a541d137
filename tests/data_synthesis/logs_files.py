"""Small logs and task files for the tests of `data_synthesis.logs`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import yaml

TASKS = [
    {
        "name": "billing",
        "description": "Invoices, refunds and payments.",
        "alternatives": ["payments"],
        "paraphrases": ["Anything about paying us."],
        "neighbours": ["account"],
    },
    {"name": "account", "description": "Profiles, passwords and logging in."},
    {"name": "outages", "description": "Errors and outages of the service."},
]


def write_tasks(path: Path) -> Path:
    path.write_text(yaml.safe_dump({"tasks": TASKS}))
    return path


def write_log(path: Path, *lines: Any) -> Path:
    """Lines as JSON; those that are bytes or text stand as they are."""
    raw = b"".join(
        (
            line
            if isinstance(line, bytes)
            else line.encode()
            if isinstance(line, str)
            else json.dumps(line).encode()
        )
        + b"\n"
        for line in lines
    )
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def said(*texts: str) -> list[dict[str, str]]:
    """Messages in turn of the user and the assistant, the user's first."""
    return [{"role": ("user", "assistant")[n % 2], "content": t} for n, t in enumerate(texts)]


def request(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"messages": said(*texts), "model": "m", **fields}


def envelope(*texts: str, answer: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer}
    return {
        "request": request(*texts),
        "response": {"object": "chat.completion", "choices": [{"index": 0, "message": message}]},
        **fields,
    }


def dialogues(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "dialogues.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def turns(folder: Path, number: int = 0) -> list[tuple[str, str, list[str] | None]]:
    """Role, text and tasks of the turns of one dialogue."""
    found = dialogues(folder)[number]["turns"]
    return [(turn["role"], turn["content"], turn["tasks"]) for turn in found]
