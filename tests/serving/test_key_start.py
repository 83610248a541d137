"""A server that others can reach does not start without a key; keys by the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from access_fakes import ADMIN, keyed
from serving_fakes import FakeUpstream
from typer.testing import CliRunner

from scripts.cli import app
from serving.access.exposure import check_exposure
from serving.config import ServerConfig
from serving.errors import ConfigError

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

    def __call__(self, *arguments: str) -> str:
        result = CliRunner().invoke(
            app, ["keys", *arguments, "--config", str(self._file)], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.output.strip()


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv(*next(iter(SECRET.items())))
    return CommandLine(tmp_path)


def starts(keys: CommandLine, environ: Mapping[str, str] = SECRET) -> bool:
    exposed = config("0.0.0.0", storage={"url": keys.url})  # noqa: S104
    try:
        check_exposure(exposed, environ)
    except ConfigError:
        return False
    return True


def test_a_key_of_the_command_line_lets_it_start(keys: CommandLine):
    assert not starts(keys)
    plain = keys("create", "--name", "ours", "--role", "admin")
    assert plain.startswith("pm_")
    assert starts(keys)
    # Of keys that were hashed with another secret, none can be used.
    assert not starts(keys, {"POINTSMAN_KEY_SECRET": "quite another secret of tests"})
    line = keys("list")
    identifier = line.split("\t")[0]
    assert plain not in line
    assert line.endswith("usable\tours")
    assert keys("rotate", identifier, "--grace", "60") != plain
    keys("revoke", identifier)
    assert keys("list").endswith("revoked\tours")
    assert not starts(keys)
    with pytest.raises(ConfigError, match="no such key"):
        keys("revoke", "nobody")


async def test_a_running_server_learns_of_them(
    keys: CommandLine, upstream: FakeUpstream, tmp_path: Path
):
    async with keyed(upstream, tmp_path / "k.db") as server:
        arguments = ("create", "--name", "ours", "--requests-per-minute", "2")
        plain = await asyncio.to_thread(keys, *arguments)
        assert (await server.chat(plain)).headers["x-ratelimit-limit-requests"] == "2"


def test_the_secret_beside_a_file_is_its_owners_alone(
    keys: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("POINTSMAN_KEY_SECRET")
    keys("create", "--name", "ours")
    [file] = tmp_path.glob("*.key-secret")
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()
    keys("create", "--name", "another")
    assert file.read_text() == before
    assert starts(keys, {})
