"""A real PostgreSQL of one's own, which tests may kill, stall and start again."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import psutil

SETTINGS = {"listen_addresses": "127.0.0.1", "max_connections": "60"}
FORGETFUL = {"fsync": "off", "shared_buffers": "16MB", "autovacuum": "off"}
"""What tests can do without."""


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, if this machine has them."""
    found = [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]  # Debian keeps them off the PATH
    if path := shutil.which("initdb"):
        found.append(Path(path).resolve())
    folders = [each.parent for each in found if (each.parent / "postgres").exists()]
    return max(folders, default=None)


class Postgres:
    """One cluster in a folder of its own; PostgreSQL refuses root, so root runs it as another.

    Unless it is `durable`, it is quick and forgets on a power cut, in memory if there is room.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._bin = folder
        self._settings = SETTINGS if durable else SETTINGS | FORGETFUL
        place = None if durable else _fast_folder()
        self._home = Path(tempfile.mkdtemp(prefix="pointsman-pg-", dir=place))
        self._account = None if os.geteuid() else _account()
        if self._account:
            os.chown(self._home, self._account.pw_uid, self._account.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._stalled: list[psutil.Process] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._run("initdb", "-D", "data", "-U", "owner", "-A", "trust", "--no-sync", "-E", "UTF8",
                  "--locale=C")  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process is not None

    def url(self, database: str) -> str:
        """As an owner writes it into a configuration."""
        return f"postgresql://owner@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it unless it runs, and return once it answers; raises OSError with its log."""
        if self._process is not None and self._process.poll() is None:
            return
        settings = [
            word for key, value in self._settings.items() for word in ("-c", f"{key}={value}")
        ]
        with open(self._home / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", "-p", str(self.port), "-k", self._home,
                 *settings],
                stdout=log, stderr=log, **self._options(),
            )  # fmt: skip
        for _ in range(300):
            if self._process.poll() is not None:
                break
            if self._holds_port() and self._answers():
                return
            time.sleep(0.05)
        raise OSError((self._home / "log").read_text(errors="replace")[-2000:])

    def _holds_port(self) -> bool:
        """Whether it is ready: another server may have taken the port, and would answer too."""
        assert self._process is not None
        try:
            lines = (self._home / "data" / "postmaster.pid").read_text().split()
        except OSError:
            return False
        return lines[0] == str(self._process.pid) and lines[-1] == "ready"

    def _answers(self) -> bool:
        """Whether it lets a client in; while it recovers it takes connections and refuses them."""
        hello = b"\0\3\0\0user\0owner\0database\0postgres\0\0"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall((len(hello) + 4).to_bytes(4, "big") + hello)
                return probe.recv(1) == b"R"
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL to all of it: connections break, whatever was not committed is lost."""
        self.resume()
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)
            self._process = None

    def stall(self) -> None:
        """SIGSTOP to all of it: connections stay open, and nothing answers."""
        self._stalled = self._processes()
        for process in self._stalled:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `stall`."""
        for process in self._stalled:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        self._stalled = []

    async def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"t{uuid.uuid4().hex}"
        connection = await asyncpg.connect(self.url("postgres"))
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        return self.url(name)

    def remove(self) -> None:
        """Kill it and delete its files."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        # The postmaster first: a stopped one starts no process that would be missed.
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _run(self, program: str, *arguments: str) -> None:
        options = self._options()
        done = subprocess.run(
            [self._bin / program, *arguments], capture_output=True, check=False, **options
        )
        assert done.returncode == 0, done.stderr.decode()

    def _options(self) -> dict[str, Any]:
        who = {"user": self._account.pw_uid, "group": self._account.pw_gid} if self._account else {}
        return {"cwd": self._home, **who}


def _fast_folder() -> str | None:
    """A folder in memory with room for some dozen databases; None for the usual one."""
    folder = Path("/dev/shm")  # noqa: S108
    roomy = folder.is_dir() and shutil.disk_usage(folder).free > 2**30
    return str(folder) if roomy else None


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise OSError("no account to run PostgreSQL as")
