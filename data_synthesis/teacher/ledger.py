"""Every finished call, one line each, so that nothing is paid for twice.

The file only grows. A line is on the disk before its reply is used, and a line that was cut off in
the middle of being written is dropped when the file is opened again.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_synthesis.teacher.calls import Call, Finish, Reply
from data_synthesis.teacher.errors import TeacherError
from routing.errors import InvalidRecord

Tokens = Annotated[int, Field(ge=0)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    stage: str
    unit: str
    attempt: int
    model: str
    finish: Finish
    text: str
    input_tokens: Tokens
    output_tokens: Tokens


class Ledger:
    """The finished calls of one output folder; one process at a time may hold it."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`.

        Raises InvalidRecord for a broken line before the last, TeacherError if another process
        holds the file.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._replies: dict[str, Reply] = {}
        self.used: dict[str, list[int]] = {}
        """Input and output tokens by model."""
        self._file = open(path, "a+b")  # noqa: SIM115 - closed by __exit__
        try:
            self._lock(path)
            self._load(path)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> Reply | None:
        """The reply to a finished call."""
        return self._replies.get(key)

    def append(self, call: Call, reply: Reply) -> None:
        """Write down a finished call; it is on the disk when this returns."""
        line = _Line(
            key=call.key,
            stage=call.stage,
            unit=call.unit,
            attempt=call.attempt,
            model=call.model,
            finish=reply.finish,
            text=reply.text,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
        )
        self._file.write(line.model_dump_json().encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._take(line)

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TeacherError(f"{path} is in use by another run") from None

    def _load(self, path: Path) -> None:
        self._file.seek(0)
        lines = self._file.read().split(b"\n")
        # A whole line ends with a newline: what follows the last one is empty, or torn.
        torn = lines.pop()
        kept = 0
        for number, line in enumerate(lines, 1):
            try:
                self._take(_Line.model_validate(json.loads(line)))
            except (ValidationError, ValueError):
                # Nor need the last block of a file have reached the disk when the power went.
                if number == len(lines) and not torn:
                    torn = line
                    break
                raise InvalidRecord(f"{path}:{number}: not a line of a ledger") from None
            kept += len(line) + 1
        if torn:
            self._file.truncate(kept)

    def _take(self, line: _Line) -> None:
        reply = Reply(line.text, line.finish, line.input_tokens, line.output_tokens)
        self._replies.setdefault(line.key, reply)
        used = self.used.setdefault(line.model, [0, 0])
        used[0] += line.input_tokens
        used[1] += line.output_tokens
