"""Speed of the gateway beside that of LiteLLM and Portkey, in one run on two cores.

    python -m scripts.bench.gateway [--seconds 5] [--rounds 3] [--without litellm,portkey]
        [--soak 200000] [--install]

Method: the gateway has one core to itself; the upstream (nginx with fixed answers) and the load
generator (wrk) share the other. All stacks are started once. Round by round and measure by measure
they are loaded in turn, one at a time and for equally long, so that a busy machine slows all alike;
a slow stack is given longer, so that the answers cut off at the end weigh little. Each has been
warmed up and has given an answer that was checked. Medians over the rounds are given, and of ratios
the medians of each round's. All are sent the same conversation of about 500 words.

    direct     the upstream without a gateway
    ceiling    our server and HTTP client, passing bytes through: no routing, no log, no metrics
    pointsman  `router:<name>` with eight tasks; request log and metrics on; an engine that answers
               at once stands for a warm session and holds no model (`make bench-decision` measures
               engines)
    pointsman, 2 workers
               the same by two processes and one with the engine; on the same core, so that they
               cost no more than one, and on all further cores that the machine has
    pointsman, all on, SQLite; PostgreSQL; and with 2 workers
               the same with all that an owner may switch on: a key is asked for, whose limits and
               budget are checked and settled, and decisions and attempts are recorded (sessions
               are on in all rows of ours); PostgreSQL runs beside the upstream
    litellm    its proxy, one worker, no database
    portkey    its gateway, one process

    latency    median on one connection; `added_p50_ms` is ours less that of `direct`
    chat       answers a second over `--connections`
    stream     events a second over `--streams` connections; the upstream writes each by itself
    bulk       the same, but the upstream writes all the events of an answer at once
    memory     resident, before and after the load
    failover   a model that answers 500 stands before one that answers: what each of ten requests,
               one after the other, costs more than without it, and how often it was asked
    soak       resident memory over so many requests, a new conversation every ten; what our server
               keeps of them is bounded so that it is full after a quarter of 200,000

Where something else uses the gateway's core, "a CPU second" tells more than "a second": it is work
over the CPU time that the stack really had.

Needs Debian's nginx, libnginx-mod-http-echo, wrk and postgresql (`--install` gets them, as root),
node and npm for Portkey; the peers are installed under `.cache/bench`. The last line of output is
one JSON object; what was not measured is null.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from scripts.bench.gateway import stacks
from scripts.bench.gateway.full import STORAGES, all_on, full_name
from scripts.bench.gateway.load import LoadFailed
from scripts.bench.gateway.measure import Row, Task, failover, measure, soak, warm_up
from scripts.bench.gateway.mock import PACKAGES, Mock, missing, mock_upstream
from scripts.bench.gateway.peers import NotInstalled
from scripts.bench.gateway.processes import rss_mb
from scripts.bench.gateway.report import result, table
from scripts.places import ROOT
from scripts.postgres_server import Postgres, binaries

PEERS = {"litellm": stacks.litellm, "portkey": stacks.portkey}
CACHE = ROOT / ".cache" / "bench"


def main() -> None:
    arguments = _arguments()
    _need_packages(arguments.install)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        _give_up("two cores are needed, one for the gateway and one for the rest")
    gateway_core, load_core, *spare = cores
    os.sched_setaffinity(0, {load_core})
    # An exception unwinds what was started; the signal alone would leave it running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        mock = running.enter_context(mock_upstream(load_core, folder))
        rows, absent = _start(arguments.without, mock, [gateway_core, *spare], folder, running)
        detail = _measured(arguments, rows, mock, folder)
        detail |= {
            "not_measured": absent,
            "machine": f"{platform.machine()}, {_processor()}",
            "load_average": round(os.getloadavg()[0], 1),
        }
        print(f"\n{table(rows, absent, detail)}\n")
        print(json.dumps(result(rows, detail)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of the gateway, beside its peers.")
    parser.add_argument("--seconds", type=float, default=5, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64, help="for answers a second")
    parser.add_argument("--streams", type=int, default=16, help="at once, for events a second")
    parser.add_argument("--without", default="", help="peers to leave out, by comma")
    parser.add_argument("--soak", type=int, default=0, help="requests to watch memory over")
    parser.add_argument("--install", action="store_true", help="missing Debian packages, as root")
    arguments = parser.parse_args()
    arguments.without = [name for name in arguments.without.split(",") if name]
    for name in arguments.without:
        if name not in PEERS:
            parser.error(f"--without: {name!r} is none of {', '.join(PEERS)}")
    if arguments.connections < 2 or arguments.streams < 2 or arguments.rounds < 1:
        parser.error("--connections and --streams must be at least 2, --rounds at least 1")
    return arguments


def _need_packages(install: bool) -> None:
    if not missing():
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
    if install and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=sys.stderr)
        subprocess.run(command, check=False, stdout=sys.stderr)
    if missing():
        _give_up(f"missing: {' '.join(missing())}. As root: {' '.join(command)}")


def _give_up(why: str) -> None:
    print(why, file=sys.stderr)
    raise SystemExit(2)


def _start(
    without: list[str],
    mock: Mock,
    cores: list[int],
    folder: Path,
    running: ExitStack,
) -> tuple[dict[str, Row], dict[str, str]]:
    """Rows of all stacks that run, and why others do not; without ours there is nothing to do.

    One process has the first of `cores`, several may use all.
    """
    own: dict[str, stacks.Prepare] = {
        "direct": stacks.direct,
        "ceiling": stacks.ceiling,
        "pointsman": stacks.pointsman,
        stacks.TWO_WORKERS: stacks.two_workers,
        **_all_on(folder, running),
    }
    rows: dict[str, Row] = {}
    absent = dict.fromkeys(without, "left out")
    for name, prepare in (own | PEERS).items():
        if name in absent:
            continue
        try:
            stack = prepare(mock, folder, CACHE)
            process = None
            if stack.command:
                own_cores = cores if "workers" in name else cores[:1]
                where = ",".join(map(str, own_cores))
                process = running.enter_context(stacks.started(stack, where, folder))
        except (NotInstalled, stacks.DidNotStart) as error:
            if name in own:
                raise SystemExit(str(error)) from None
            absent[name] = str(error)
        else:
            rows[name] = Row(stack, process.pid if process else None)
    return rows, absent


def _all_on(folder: Path, running: ExitStack) -> dict[str, stacks.Prepare]:
    """Rows with everything on, each with a database of its own."""
    programs = binaries()
    assert programs is not None  # or we would have given up
    postgres = Postgres(programs, durable=True)
    running.callback(postgres.remove)
    postgres.start()
    prepared = {}
    for workers in (1, 2):
        urls = (f"sqlite:///{folder}/{workers}.db", asyncio.run(postgres.new_database()))
        for storage, url in zip(STORAGES, urls, strict=True):
            prepared[full_name(storage, workers)] = all_on(url, storage, workers)
    return prepared


def _measured(
    arguments: argparse.Namespace, rows: dict[str, Row], mock: Mock, folder: Path
) -> dict[str, Any]:
    streams = arguments.streams
    tasks = [
        Task("chat", 1),
        Task("chat", arguments.connections),
        Task("stream", streams),
        Task("bulk", streams),
    ]
    for name, row in rows.items():
        print(f"warm-up: {name}", flush=True)
        warm_up(row, tasks, arguments.seconds, folder)
    for number in range(arguments.rounds):
        for task in tasks:
            for row in rows.values():
                measure(row, task, arguments.seconds, folder)
        print(f"round {number + 1} of {arguments.rounds}", flush=True)
    for row in rows.values():
        if row.pid is not None:
            row.add("rss_mb", rss_mb(row.pid))
    detail: dict[str, Any] = {"failover": {}, "soak": None}
    for name, row in rows.items():
        if (found := failover(row, mock)) is not None:
            detail["failover"][name] = found
    if arguments.soak:
        ours = rows["pointsman"]
        try:
            detail["soak"] = soak(ours, arguments.soak, arguments.connections, folder, print)
        except LoadFailed as error:
            ours.failed("soak", error)
    shown = ("seconds", "rounds", "connections", "streams")
    return detail | {name: getattr(arguments, name) for name in shown}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "unknown"
    )


if __name__ == "__main__":
    main()
