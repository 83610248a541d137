"""`pointsman keys`: API keys, made and revoked in the database itself, beside a server or none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from scripts.places import CONFIGS
from serving.access.principal import MOST_A_MINUTE, MOST_DOLLARS

if TYPE_CHECKING:
    from serving.access.key_store import KeyStore

app = typer.Typer(help="API keys of a server's callers and admins.", no_args_is_help=True)

Config = Annotated[Path, typer.Option(help="Server configuration; it names the database.")]
T = TypeVar("T")
DEFAULT = CONFIGS / "serve.yaml"
PAGE = 1000


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    role: Annotated[Literal["caller", "admin"], typer.Option(help="What it may do.")] = "caller",
    tenant: Annotated[
        str | None, typer.Option(help="Whose it is; left out, it shares nothing with other keys.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, max=MOST_A_MINUTE)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, max=MOST_A_MINUTE)] = None,
    monthly_budget: Annotated[
        float | None, typer.Option(min=0, max=MOST_DOLLARS, help="US dollars.")
    ] = None,
    config: Config = DEFAULT,
) -> None:
    """Make a key and print it: this once, for it is not kept."""
    from serving.access.principal import KeyLimits, Role

    limits = KeyLimits(requests_per_minute, tokens_per_minute, monthly_budget)

    async def make(store: KeyStore) -> str:
        made = await store.create(name, role=Role(role), tenant=tenant, limits=limits)
        return made.plaintext

    print(_with_store(config, make))


@app.command(name="list")
def list_keys(config: Config = DEFAULT) -> None:
    """Print all keys, one a line: id, role, tenant, last characters, state, name."""

    async def lines(store: KeyStore) -> list[str]:
        found, after = [], None
        while page := await store.page(PAGE, after):
            found += page
            after = page[-1].id
        now = datetime.now(UTC).timestamp()
        return [
            "\t".join(
                (
                    key.id,
                    key.role.value,
                    key.tenant,
                    key.secrets[0].last_characters if key.secrets else "",
                    "revoked" if key.revoked_at else "usable" if key.usable(now) else "expired",
                    key.name,
                )
            )
            for key in found
        ]

    print("\n".join(_with_store(config, lines)))


@app.command()
def rotate(
    identifier: Annotated[str, typer.Argument(help="Id of the key.")],
    grace: Annotated[int, typer.Option(min=0, help="Seconds the old key still holds.")] = 86_400,
    config: Config = DEFAULT,
) -> None:
    """Give a key another secret and print it; the old one holds until the grace is over."""

    async def turn(store: KeyStore) -> str:
        return (await store.rotate(identifier, grace)).plaintext

    print(_with_store(config, turn))


@app.command()
def revoke(
    identifier: Annotated[str, typer.Argument(help="Id of the key.")], config: Config = DEFAULT
) -> None:
    """Refuse a key from now on, for good."""

    async def end(store: KeyStore) -> None:
        await store.revoke(identifier)

    _with_store(config, end)


def _with_store(config: Path, work: Callable[[KeyStore], Awaitable[T]]) -> T:
    from serving import logs
    from serving.access.key_store import KeyRevoked, KeyStore, NoSuchKey
    from serving.access.keys import hasher_of
    from serving.config import load_config
    from serving.errors import ConfigError
    from serving.storage.database import DatabaseDown, open_database

    logs.configure("warning")  # to standard error: a key alone is the output
    loaded = load_config(config)

    async def run() -> T:
        database = open_database(loaded.storage, os.environ)
        if database is None:
            raise ConfigError(f"{config}: storage: keys need a place to be kept")
        hasher = hasher_of(loaded.access.key_secret_env, os.environ, database.url)
        if hasher is None:
            variable = loaded.access.key_secret_env
            raise ConfigError(f"set {variable}, the secret that keys are hashed with")
        try:
            await database.start()
            return await work(KeyStore(database, hasher))
        except DatabaseDown as error:
            raise ConfigError(str(error)) from None
        except NoSuchKey:
            raise ConfigError("there is no such key") from None
        except KeyRevoked:
            raise ConfigError("the key was revoked") from None
        finally:
            await database.close()

    return asyncio.run(run())
