"""A client in a process of its own: one request after another on one connection.

    python -m scripts.bench.asking PORT PATH < bodies

Each line of standard input is a body of JSON; for each, a line with the milliseconds that the whole
answer took, and the answer.
"""

from __future__ import annotations

import http.client
import sys
import time

TIMEOUT_S = 60


def main() -> None:
    port, path = sys.argv[1:]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), TIMEOUT_S)
    for line in sys.stdin.buffer:
        start = time.perf_counter()
        connection.request("POST", path, line, {"content-type": "application/json"})
        answer = connection.getresponse().read()
        took = (time.perf_counter() - start) * 1000
        sys.stdout.buffer.write(b"%.3f %b\n" % (took, answer.replace(b"\n", b" ")))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
