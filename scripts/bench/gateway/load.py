"""Load by wrk, and single requests."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scripts.bench.gateway.mock import PATH

TIMEOUT_S = 60
KEPT_S = 2.0
"""A connection that rested for longer is opened anew: servers close theirs, some after 5 s."""
TALK = 10
"""Requests of a soak that belong to one conversation."""
NUMBER = "@NUMBER@"
"""In a body, what a soak replaces by the number of the conversation."""

_SCRIPT = """
wrk.method = "POST"
wrk.body = {body}
{headers}
{request}
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    'RESULT {{"requests": %d, "us": %d, "bytes": %d, "p50_us": %d, "p99_us": %d, "errors": %d}}',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50),
    latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""
# Every conversation is a new one to the server, so that what it keeps of them fills up.
_SOAK = """
local before, after = {before}, {after}
local sent = 0
request = function()
  sent = sent + 1
  local number = string.format("%d.%d", {seed}, math.floor(sent / {talk}))
  return wrk.format(nil, nil, nil, before .. number .. after)
end
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    url: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """What came of many."""

    requests: int
    seconds: float
    bytes: int
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def rps(self) -> float:
        return self.requests / self.seconds


class LoadFailed(Exception):
    """Answers were missing or wrong, so a rate would mean nothing."""


def wrk(
    call: Call, connections: int, seconds: float, folder: Path, soak_seed: int | None = None
) -> Load:
    """Ask as fast as answers come; with a seed, each `TALK` requests are a new conversation."""
    request = ""
    if soak_seed is not None:
        before, after = call.body.split(NUMBER)
        request = _SOAK.format(before=_lua(before), after=_lua(after), seed=soak_seed, talk=TALK)
    headers = "\n".join(
        f"wrk.headers[ {_lua(name)} ] = {_lua(value)}" for name, value in call.headers.items()
    )
    script = folder / "load.lua"
    script.write_text(_SCRIPT.format(body=_lua(call.body), headers=headers, request=request))
    program = shutil.which("wrk", path=PATH)
    assert program is not None
    command = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", f"{TIMEOUT_S}s", "-s", str(script), call.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = next((x for x in done.stdout.splitlines() if x.startswith("RESULT ")), None)
    if found is None:
        raise LoadFailed(f"wrk said: {(done.stderr or done.stdout).strip()}")
    raw = json.loads(found.removeprefix("RESULT "))
    return Load(
        raw["requests"],
        raw["us"] / 1e6,
        raw["bytes"],
        raw["p50_us"] / 1000,
        raw["p99_us"] / 1000,
        raw["errors"],
    )


class Client:
    """One request after another on a connection that stays open."""

    def __init__(self, call: Call) -> None:
        parts = urlsplit(call.url)
        assert parts.hostname is not None
        self._call = call
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, TIMEOUT_S)
        self._used = time.monotonic()

    def ask(self) -> tuple[int, bytes, float]:
        """Status, body and milliseconds of one answer."""
        headers = {"content-type": "application/json", **self._call.headers}
        if time.monotonic() - self._used > KEPT_S:
            self._connection.close()  # the request opens it
        start = time.perf_counter()
        try:
            self._connection.request("POST", self._path, self._call.body.encode(), headers)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise LoadFailed(f"{self._call.url}: {error!r}") from None
        self._used = time.monotonic()
        return response.status, body, (time.perf_counter() - start) * 1000

    def close(self) -> None:
        self._connection.close()


def _lua(text: str) -> str:
    assert "]===]" not in text
    return f"[===[{text}]===]"
