"""A server that others can reach does not start without a key; keys by the command line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from access_fakes import ADMIN, bearer, keyed
from serving_fakes import FakeUpstream

from serving.access.exposure import check_exposure
from serving.access.keys import hasher_of
from serving.config import ServerConfig
from serving.config_storage import StorageConfig
from serving.errors import ConfigError
from serving.storage.engines import database_url

ROOT = Path(__file__).resolve().parents[2]
SECRET = {"POINTSMAN_KEY_SECRET": "a secret of tests that is long enough"}


def config(host: str, **update: Any) -> ServerConfig:
    return ServerConfig.model_validate({"listen": {"host": host}, **update})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_it_starts_without_a_key(host: str):
    check_exposure(config(host), {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "pointsman.example"])  # noqa: S104
def test_elsewhere_it_needs_a_key(host: str):
    with pytest.raises(ConfigError, match="POINTSMAN_ADMIN_KEY"):
        check_exposure(config(host), {"POINTSMAN_ADMIN_KEY": " "})
    check_exposure(config(host), {"POINTSMAN_ADMIN_KEY": ADMIN})
    check_exposure(config(host, access={"keyless": "anywhere"}), {})


def test_nobody_is_locked_in():
    with pytest.raises(ConfigError):
        check_exposure(config("127.0.0.1", access={"keyless": "never"}), {})


def test_a_database_that_does_not_answer_may_hold_keys():
    url = "postgresql://nobody@127.0.0.1:1/none"
    storage = {"url": url, "timeout_s": 1}
    check_exposure(config("0.0.0.0", storage=storage), SECRET)  # noqa: S104


class CommandLine:
    """`pointsman keys` on one configuration file."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'k.db'}"
        self._file = folder / "serve.yaml"
        self._file.write_text(yaml.safe_dump({"storage": {"url": self.url}}))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scripts.cli", "keys", *arguments]
        return subprocess.run(
            [*command, "--config", str(self._file)],
            env={**os.environ, **SECRET},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")


@pytest.fixture
def keys(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


async def starts(keys: CommandLine, environ: Mapping[str, str] = SECRET) -> bool:
    exposed = config("0.0.0.0", storage={"url": keys.url})  # noqa: S104
    try:
        await asyncio.to_thread(check_exposure, exposed, environ)
    except ConfigError:
        return False
    return True


async def test_a_key_of_the_command_line_lets_it_start_and_is_known_to_a_running_server(
    keys: CommandLine, upstream: FakeUpstream, tmp_path: Path
):
    assert not await starts(keys)
    async with keyed(upstream, tmp_path / "k.db") as server:
        options = ("--name", "ours", "--role", "admin", "--requests-per-minute", "2")
        plain = await asyncio.to_thread(keys, "create", *options)
        assert plain.startswith("pm_")
        assert (await server.chat(plain)).headers["x-ratelimit-limit-requests"] == "2"
        assert await starts(keys)
        # Of keys that were hashed with another secret, none can be used.
        assert not await starts(keys, {"POINTSMAN_KEY_SECRET": "quite another secret of tests"})
        line = await asyncio.to_thread(keys, "list")
        identifier = line.split("\t")[0]
        assert plain not in line
        assert line.endswith("usable\tours")
        turned = await asyncio.to_thread(keys, "rotate", identifier, "--grace", "60")
        assert (await server.http.get("/v1/key", headers=bearer(turned))).status_code == 200
        assert (await server.http.get("/v1/key", headers=bearer(plain))).status_code == 200
        await asyncio.to_thread(keys, "revoke", identifier)
        assert not await starts(keys)
    done = await asyncio.to_thread(keys.run, "revoke", "nobody")
    assert (done.returncode, done.stderr) == (1, "pointsman: there is no such key\n")


def test_the_secret_beside_a_file_is_its_owners_alone(tmp_path: Path):
    url = database_url(StorageConfig(url=f"sqlite:///{tmp_path}/k.db"), {})
    made, read = (hasher_of("POINTSMAN_KEY_SECRET", {}, url) for _ in range(2))
    [file] = tmp_path.glob("*.key-secret")
    assert file.stat().st_mode & 0o777 == 0o600
    assert made is not None
    assert read is not None
    assert made.digest(b"pm_x") == read.digest(b"pm_x")
    file.write_text("")
    with pytest.raises(ConfigError, match="holds no secret"):
        hasher_of("POINTSMAN_KEY_SECRET", {}, url)


def test_limits_that_no_database_holds_are_refused_by_name(keys: CommandLine):
    done = keys.run("create", "--name", "ours", "--tokens-per-minute", str(10**12))
    assert done.returncode == 2
    assert "--tokens-per-minute" in done.stderr
    assert "parameters" not in done.stderr
