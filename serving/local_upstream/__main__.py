"""Command line of the local upstream."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m serving.local_upstream",
        description="OpenAI-compatible server that generates text with the base model.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the model")
    arguments = parser.parse_args()
    for name in ("config.json", "tokenizer.json"):
        if not (arguments.base / name).is_file():
            parser.error(f"--base: {arguments.base} has no {name}")

    from granian import Granian
    from granian.constants import Interfaces

    from serving.local_upstream.app import BASE_VARIABLE, THREADS_VARIABLE

    # OpenMP's idle threads would spin, and starve a routing engine that shares the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ[BASE_VARIABLE] = str(arguments.base.resolve())
    os.environ[THREADS_VARIABLE] = str(arguments.threads)
    Granian(
        "serving.local_upstream.app:from_environment",
        factory=True,
        interface=Interfaces.ASGI,
        address=arguments.host,
        port=arguments.port,
        workers=1,
        websockets=False,
        workers_kill_timeout=5,
    ).serve()


if __name__ == "__main__":
    main()
