"""POSTs of JSON to one server, conversations side by side and answers in order.

Proxies of the environment are not used and redirects are not followed: what is sent, a key among
it, goes to the address that was given and nowhere else.
"""

from __future__ import annotations

import http.client
import json
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from training.evaluation.deciders import EvaluationError

T = TypeVar("T")
R = TypeVar("R")

FAILURES = (OSError, http.client.HTTPException)
"""What a post raises when no answer came."""
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    raw: bytes
    retry_after: float | None
    """Seconds that the server asks to wait before the next request, if it says so in seconds."""


class Server:
    """An address of a server; raises EvaluationError for what is none."""

    def __init__(
        self,
        base_url: str,
        path: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        try:
            url = urlsplit(base_url if "//" in base_url else f"http://{base_url}")
            port = url.port
        except ValueError:
            raise EvaluationError("not the URL of a server: host or port is malformed") from None
        if url.scheme not in ("http", "https") or not url.hostname:
            raise EvaluationError(f"not the URL of a server: {base_url!r}")
        if url.username or url.password or url.query or url.fragment:
            raise EvaluationError("a server's URL has no credentials, query or fragment")
        self.netloc = url.netloc
        self._kind = (
            http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        )
        self._host, self._port = url.hostname, port
        self._path = url.path.rstrip("/").removesuffix(path) + path
        self._timeout = timeout
        self._headers = {"content-type": "application/json", **(headers or {})}

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection for the posts of one thread, opened by the first of them."""
        connection = self._kind(self._host, self._port, timeout=self._timeout)
        try:
            yield Connection(connection, self._path, self._headers)
        finally:
            connection.close()


class Connection:
    """Posts one after the other; it is opened again where the server closed it in between."""

    def __init__(
        self, connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self._path = path
        self._headers = headers

    def post(self, body: Any) -> Response:
        """The answer, whatever its status; raises one of FAILURES where none comes."""
        raw = json.dumps(body).encode()
        reused = self._connection.sock is not None
        for last in (not reused, True):
            try:
                return self._once(raw)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # The server may close an idle connection at any time; what is asked here changes
                # nothing, so asking again on a new connection is safe.
                if last:
                    raise
        raise AssertionError("unreachable")

    def _once(self, raw: bytes) -> Response:
        try:
            self._connection.request("POST", self._path, raw, dict(self._headers))
            response = self._connection.getresponse()
            asked = _seconds(response.getheader("retry-after"))
            return Response(response.status, response.read(), asked)
        except FAILURES:
            # A request that was cut short would spoil the next one.
            self._connection.close()
            raise


@dataclass(frozen=True)
class Retries:
    """Asks again where a later answer may be better: no answer, or status 408, 429 or 5xx."""

    attempts: int = 7
    backoff_s: float = 1.0
    """Longest wait after the first attempt; it doubles with each, up to LONGEST_WAIT_S."""
    sleep: Callable[[float], None] = time.sleep

    def post(self, connection: Connection, body: Any) -> Response:
        """The first answer that is final, or the last; raises one of FAILURES where none came."""
        for attempt in range(1, self.attempts):
            asked: float | None = None
            try:
                response = connection.post(body)
                if not _may_pass(response.status):
                    return response
                asked = response.retry_after
            except FAILURES:
                pass
            self.sleep(self._wait(attempt, asked))
        return connection.post(body)

    def _wait(self, attempt: int, asked: float | None) -> float:
        ceiling = self.backoff_s * 2.0 ** (attempt - 1)
        # Jitter, so that requests which were refused together do not come back together.
        own = random.uniform(0.5, 1.0) * ceiling
        return min(max(own, asked or 0.0), LONGEST_WAIT_S)


def in_order(work: Callable[[T], R], items: Iterable[T], concurrency: int) -> Iterator[R]:
    """`work` of each item in the order of items, `concurrency` at a time in threads of their own.

    The first error ends it, once the work under way is done.
    """
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="evaluation")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            # Twice as many as run at once: no worker waits, and no file is queued as a whole.
            if len(pending) >= 2 * concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def error_text(raw: bytes) -> str:
    """The message of an error in OpenAI's shape, else the beginning of the body."""
    try:
        return str(json.loads(raw)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return raw[:300].decode(errors="replace")


def _may_pass(status: int) -> bool:
    return status in (408, 429) or status >= 500


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
