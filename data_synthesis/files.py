"""Writing files that appear whole or not at all, with the same bytes for the same content."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file by way of a `.part` beside it."""
    part = _part(path)
    part.write_bytes(content)
    part.replace(path)


def write_json(path: Path, value: object) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def write_gzip(path: Path, lines: Iterable[bytes]) -> dict[str, Any]:
    """Write gzipped lines; returns their number and the file's SHA-256."""
    part = _part(path)
    count = 0
    with (
        open(part, "wb") as raw,
        # No name and a fixed time in the header: the same lines give the same bytes.
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file,
    ):
        for line in lines:
            file.write(line)
            count += 1
    with open(part, "rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    part.replace(path)
    return {"rows": count, "sha256": digest}


def _part(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")
