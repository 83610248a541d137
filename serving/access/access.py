"""Puts the parts of access together, and keeps them up to date."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from serving.access.gate import ADMIN_KEY_ENV, Gate, State
from serving.access.key_store import KeyStore
from serving.access.keyring import Keyring
from serving.access.keys import Hasher, hasher_of
from serving.access.ledger import Ledger, Usage
from serving.access.principal import Principal
from serving.access.provider_keys import ProviderKeyStore, fernet_of
from serving.access.rates import LocalRates, Rates
from serving.access.spending import Spending
from serving.access.sync import Sync
from serving.access.usage_store import UsageStore
from serving.catalogue import Catalogue
from serving.config import ServerConfig
from serving.ranking import Ranking
from serving.storage.database import Database, DatabaseDown
from serving.storage.tables.access import SUBJECT
from serving.storage.tables.changes import last_change

if TYPE_CHECKING:
    from serving.access.shared_rates import SharedRates

LAST_WRITE_S = 5.0
"""At the end, so long at most is tried to write what was spent."""

log = structlog.get_logger("pointsman")


class Access:
    """Keys, limits and budgets of one server.

    Raises ConfigError for secrets in the environment that cannot be used.
    """

    def __init__(
        self,
        config: ServerConfig,
        environ: Mapping[str, str],
        database: Database | None,
        catalogue: Catalogue,
        ranking: Ranking,
    ) -> None:
        section = config.access
        hasher = hasher_of(section.key_secret_env, environ, database.url if database else None)
        self.keys = KeyStore(database, hasher) if database and hasher else None
        fernet = fernet_of(section.encryption_keys_env, environ)
        self.provider_keys = ProviderKeyStore(database, fernet) if database and fernet else None
        self.keyring = Keyring(
            # A secret of this process will do for the environment's key.
            hasher or Hasher([secrets.token_urlsafe(32)]),
            environ.get(ADMIN_KEY_ENV, "").strip() or None,
        )
        self.ledger = Ledger()
        redis_url = environ.get(section.redis_url_env, "").strip()
        self._shared = _shared_rates(redis_url, section.redis_url_env) if redis_url else None
        rates: Rates = self._shared or LocalRates()
        self.spending = Spending(
            self.ledger, rates, ranking.costs, ranking.outputs, section.unknown_prices
        )
        self._catalogue = catalogue
        self._database = database
        self._usage = UsageStore(database) if database else None
        self._version: int | None = None
        self._lost = 0
        self._budgeted: set[str] = set()
        self._sync = Sync(self._look, section.refresh_s) if database else None
        self.gate = Gate(
            section,
            config.listen.host,
            self.keyring,
            rates,
            caught_up=self.caught_up,
            state=self._state,
        )

    async def start(self) -> None:
        """Read the keys, and begin to watch the database."""
        if self._sync is not None:
            await self._sync.start()
        if self.provider_keys is not None:
            with suppress(DatabaseDown):
                await self.provider_keys.renew()

    async def close(self) -> None:
        """Write what was spent, and let go of Redis."""
        if self._sync is not None:
            await self._sync.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WRITE_S):
                    await self._sync.once()
        if self._shared is not None:
            await self._shared.close()

    async def caught_up(self) -> None:
        """Return when changes made before this call hold here."""
        if self._sync is not None:
            await self._sync.caught_up()

    async def usage(self, principal: Principal) -> Usage:
        """What a key has spent this month, at all replicas."""
        assert principal.key_id is not None
        account = self.ledger.account(principal.key_id)
        if self._usage is not None:
            with suppress(DatabaseDown):
                self.ledger.learn(
                    self.ledger.month,
                    await self._usage.elsewhere(self.ledger.month, [principal.key_id]),
                )
        return account.total()

    def _state(self) -> State:
        if self.keys is None:
            return "none"
        return "unknown" if self._version is None else "loaded"

    async def _look(self) -> None:
        await self._write_usage()
        await self._read_changes()
        await self._read_usage(self._budgeted & self.ledger.take_asked())

    async def _write_usage(self) -> None:
        if self._usage is None:
            return
        rows = self.ledger.take_unsaved()
        try:
            await self._usage.write(rows)
        except BaseException:
            self.ledger.keep(rows)
            raise

    async def _read_changes(self) -> None:
        if self._database is None:
            return
        await self._rehash()
        async with self._database.read() as connection:
            version = await last_change(connection, SUBJECT)
        if version == self._version:
            return
        if self.keys is not None:
            await self._read_keys(self.keys)
        if self.provider_keys is not None:
            self._catalogue.use_stored_keys(await self.provider_keys.load())
        self._version = version

    async def _read_keys(self, store: KeyStore) -> None:
        keys = await store.load()
        budgeted = {key.id for key in keys if key.limits.monthly_budget is not None}
        await self._read_usage(budgeted - self._budgeted)
        self._budgeted = budgeted
        lost = self.keyring.replace(keys)
        if lost and lost != self._lost:
            log.warning("keys_hashed_with_an_unknown_secret", keys=lost)
        self._lost = lost

    async def _rehash(self) -> None:
        while self.keys is not None and self.keyring.outdated:
            old, new = self.keyring.outdated.popitem()
            await self.keys.rehash(old, new)

    async def _read_usage(self, keys: set[str]) -> None:
        if self._usage is not None and keys:
            month = self.ledger.month
            self.ledger.learn(month, await self._usage.elsewhere(month, sorted(keys)))


def _shared_rates(url: str, variable: str) -> SharedRates:
    # Redis's client takes a quarter of a second to import, in every worker.
    from serving.access.shared_rates import SharedRates, connect

    return SharedRates(connect(url, variable))
