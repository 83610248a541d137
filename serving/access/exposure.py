"""A server that others can reach does not start without a key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from serving.access.gate import ADMIN_KEY_ENV, is_loopback
from serving.access.key_store import KeyStore
from serving.access.keys import hasher_of
from serving.config import ServerConfig
from serving.errors import ConfigError
from serving.storage.database import DatabaseDown, open_database


def check_exposure(config: ServerConfig, environ: Mapping[str, str]) -> None:
    """Raise ConfigError where nobody has a key and callers would need one.

    A database that does not answer now may hold keys: then the server starts, and lets nobody in
    until it has read them.
    """
    access, host = config.access, config.listen.host
    if access.keyless == "anywhere" or (access.keyless == "loopback" and is_loopback(host)):
        return
    if environ.get(ADMIN_KEY_ENV, "").strip() or asyncio.run(_any_stored(config, environ)):
        return
    create = " or make a key by `pointsman keys create`" if config.storage else ""
    raise ConfigError(
        f"listen.host: no key is known, so {host or 'every address'} is not served: set"
        f" {ADMIN_KEY_ENV}{create}. Behind a proxy that asks callers for keys itself, say"
        " access.keyless: anywhere"
    )


async def _any_stored(config: ServerConfig, environ: Mapping[str, str]) -> bool:
    database = open_database(config.storage, environ)
    if database is None:
        return False
    try:
        hasher = hasher_of(config.access.key_secret_env, environ, database.url)
        if hasher is None:
            return False
        await database.start()
        keys = await KeyStore(database, hasher).load()
        return any(secret.hashed_with in hasher.marks for key in keys for secret in key.secrets)
    except DatabaseDown:
        return True
    finally:
        await database.close()
