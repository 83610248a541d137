"""The upstream that every stack asks: nginx, with fixed answers.

It shares a core with the load generator and must not be what limits a gateway. One base URL a kind
of answer:

    chat      a chat completion with its usage
    stream    events of a chat completion, each written by itself, as a model's come
    bulk      the same events in one piece, as a proxy's buffer or a busy network hands them on
    broken    500, always; logged, so that who still asks can be counted
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from scripts.bench.gateway.processes import running, wait_for_port
from scripts.postgres_server import binaries
from serving.local_process import free_port

PACKAGES = ("nginx", "libnginx-mod-http-echo", "wrk", "postgresql")
"""Debian's; the echo module can write event by event."""
ECHO = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
"""Where Debian keeps nginx; often not in the path of others than root."""

MODEL = "mock-model"
WORDS = 100
EVENTS = WORDS + 4
"""Of a stream: the role, the words, the end, the usage, `[DONE]`."""
USAGE = {"prompt_tokens": 600, "completion_tokens": WORDS, "total_tokens": 600 + WORDS}


def missing() -> list[str]:
    """Packages that are not installed."""
    nginx, wrk = (shutil.which(program, path=PATH) for program in ("nginx", "wrk"))
    found = (nginx, ECHO.exists(), wrk, binaries())
    return [package for package, there in zip(PACKAGES, found, strict=True) if not there]


@dataclass(frozen=True, slots=True)
class Mock:
    """A running upstream."""

    port: int
    log: Path

    def base_url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.port}/{kind}/v1"

    def hits(self) -> int:
        """Requests that `broken` has had."""
        time.sleep(0.05)  # nginx logs a request after it has answered
        return len(self.log.read_bytes().splitlines())


@contextmanager
def mock_upstream(core: int, folder: Path) -> Iterator[Mock]:
    """nginx with one worker on a core; its files are kept in `folder`."""
    mock = Mock(free_port("127.0.0.1"), folder / "broken.log")
    (folder / "chat.json").write_bytes(orjson.dumps(_completion()))
    (folder / "bulk.sse").write_text("".join(_events()))
    (folder / "nginx.conf").write_text(_configuration(mock, folder))
    nginx = shutil.which("nginx", path=PATH)
    assert nginx is not None
    command = [nginx, "-p", str(folder), "-c", "nginx.conf", "-g", "daemon off;"]
    log = folder / "nginx.log"
    with running(command, str(core), log) as process:
        if not wait_for_port(process, mock.port, 10):
            raise SystemExit(f"nginx did not start:\n{log.read_text()}")
        yield mock


def _completion() -> dict[str, Any]:
    message = {"role": "assistant", "content": "word " * WORDS}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [choice],
        "usage": USAGE,
    }


def _events() -> list[str]:
    head = {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODEL,
    }

    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**head, "choices": [choice], "usage": None}

    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": "word "})] * WORDS
    chunks += [chunk({}, "stop"), {**head, "choices": [], "usage": USAGE}]
    events = [f"data: {orjson.dumps(each).decode()}\n\n" for each in chunks] + ["data: [DONE]\n\n"]
    assert len(events) == EVENTS
    return events


def _configuration(mock: Mock, folder: Path) -> str:
    # A static file answers GET only: the error page is fetched as one, whatever was asked.
    echoes = "\n".join(f"echo -n '{event}'; echo_flush;" for event in _events())
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    return f"""
load_module {ECHO};
{user}
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path .; proxy_temp_path .; fastcgi_temp_path .; uwsgi_temp_path .;
  scgi_temp_path .;
  keepalive_requests 1000000000; keepalive_timeout 1h;
  sendfile on; tcp_nodelay on; open_file_cache max=16;
  types {{ }}
  log_format hit "$msec $status";
  server {{
    listen 127.0.0.1:{mock.port} backlog=1024;
    root {folder};
    location /chat/ {{ error_page 405 =200 /chat.json; return 405; }}
    location /bulk/ {{ error_page 405 =200 /bulk.sse; return 405; }}
    location = /chat.json {{ default_type application/json; }}
    location = /bulk.sse {{ default_type text/event-stream; }}
    location /stream/ {{
      default_type text/event-stream; postpone_output 0;
      {echoes}
    }}
    location /broken/ {{
      access_log {mock.log} hit;
      default_type application/json;
      return 500 '{{"error": {{"message": "out of order", "type": "server_error"}}}}';
    }}
  }}
}}
"""
