"""Fixtures of the data tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import teacher_server
from teacher_server import KEY, KEY_VARIABLE, TeacherServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TeacherServer]:
    """A scripted endpoint, with its key in the environment."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with teacher_server.serving() as running:
        yield running
