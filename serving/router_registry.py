"""The routers that are served now: those of the configuration file, and the stored ones.

What requests see is one snapshot, replaced as a whole when the storage has changed; a router that
did not change stays the same object. While the storage is down, the last snapshot goes on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import structlog
from pydantic import ValidationError

from routing.tasks import ROUTER_PREFIX, Router
from serving.bounded import Bounded
from serving.errors import (
    ApiError,
    clipped,
    storage_unavailable,
    unknown_model,
    validation_lines,
)
from serving.refresh import Refresher
from serving.router_store import NotStored, RouterStore, StoredRouter
from serving.routers import RouterBuilder, RouterRefused, ServedRouter
from serving.storage.database import DatabaseDown

PINNED = 256
"""Older revisions that are remembered, and as many that do not exist."""
SHADOWED = "The configuration file has a router of this name, which is served instead."
_PIN = re.compile(r"([a-z0-9-]+)@([1-9][0-9]{0,8})")

log = structlog.get_logger("pointsman")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A stored router on this server."""

    revision: int
    served: ServedRouter | None
    """Its last revision that can be served here."""
    problem: str | None
    """Why its current one cannot."""


class RouterRegistry(Mapping[str, ServedRouter]):
    """Served routers by name. `store` is None where the configuration has no storage; `checkpoint`
    tells which checkpoint the builder's routers were checked for."""

    def __init__(
        self,
        configured: Mapping[str, ServedRouter],
        builder: RouterBuilder,
        checkpoint: Callable[[], str],
        store: RouterStore | None = None,
        reload_s: float = 1,
    ) -> None:
        self.configured = configured
        self.builder = builder
        self.store = store
        self._checkpoint = checkpoint
        self._checked_for = ""
        self._served = configured
        self._stored: Mapping[UUID, _Entry] = {}
        self._ids: Mapping[str, UUID] = {}
        """Of live stored routers by name."""
        self._seen = 0
        self._loaded = store is None
        self._reloading, self._fetching = asyncio.Lock(), asyncio.Lock()
        self._pinned: Bounded[tuple[UUID, int], ServedRouter] = Bounded(PINNED)
        self._failed: Bounded[tuple[UUID, int], RouterRefused | None] = Bounded(PINNED)
        """Revisions that cannot be served, and those that do not exist: until the next change."""
        self._refresher = Refresher("routers", self._poll, reload_s)

    def __getitem__(self, name: str) -> ServedRouter:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    async def start(self) -> None:
        """Load what is stored, if the storage answers, and look for changes from now on."""
        if self.store is not None:
            await self._poll()
            await self._refresher.start()

    async def close(self) -> None:
        """Look no more."""
        await self._refresher.close()

    async def prepare(self, reference: str) -> None:
        """Fetch the revision that `name@3` names, where it is not known; raises ApiError 503
        where it would have to be fetched and the storage does not answer."""
        key = self._key(reference)
        if key is None or self._known(key):
            return
        async with self._fetching:
            if not self._known(key):
                await self._fetch(key)

    def find(self, reference: str) -> ServedRouter:
        """The router that `name` or `name@3` names now; `prepare` comes first where there is an @.

        Raises ApiError: 404 for none, 503 for one that cannot be told or served now.
        """
        served = self._served.get(reference)
        if served is not None:
            return served
        key = self._key(reference)
        if key is not None:
            if (found := self._at(key)) is not None:
                return found
            if (refused := self._failed.get(key)) is not None:
                raise _unusable(reference, str(refused))
        if not self._loaded:
            raise storage_unavailable()
        id = self._ids.get(reference)
        if id is not None:
            raise _unusable(reference, self._stored[id].problem or "")
        name, at, _ = reference.partition("@")
        hint = "Routers of the configuration file have no revisions."
        raise unknown_model(
            ROUTER_PREFIX + reference, hint if at and name in self.configured else ""
        )

    def problem(self, router: StoredRouter) -> str | None:
        """Why a stored router's current revision is not what this server serves; None if it is."""
        if router.name in self.configured:
            return SHADOWED
        entry = self._stored.get(router.id)
        return entry.problem if entry is not None else None

    async def reload(self) -> None:
        """Take over what has changed in the storage. With another checkpoint, which may read what
        the last could not, routers that could not be served are tried again. Raises DatabaseDown.
        """
        if self.store is None:
            return
        async with self._reloading:
            checkpoint = self._checkpoint()
            since = self._seen if checkpoint == self._checked_for else 0
            changes = await self.store.changes(since)
            self._checked_for = checkpoint
            if not changes.whole and changes.last == self._seen:
                return
            stored = {} if changes.whole else dict(self._stored)
            ids = {} if changes.whole else dict(self._ids)
            for router in changes.routers:
                if router.deleted:
                    stored.pop(router.id, None)
                    if ids.get(router.name) == router.id:
                        del ids[router.name]
                    continue
                stored[router.id] = self._entry(router)
                ids[router.name] = router.id
                await asyncio.sleep(0)  # checking one takes milliseconds; requests go on
            self._take_over(stored, ids)
            self._seen, self._loaded = changes.last, True

    def _entry(self, router: StoredRouter) -> _Entry:
        known = self._stored.get(router.id)
        if known is not None and known.revision == router.revision and known.problem is None:
            return known
        try:
            return _Entry(router.revision, self._build(router), None)
        except RouterRefused as refused:
            log.error("router_unusable", router=router.name, revision=router.revision,
                      reason=str(refused))  # fmt: skip
            return _Entry(router.revision, known.served if known else None, str(refused))

    def _build(self, router: StoredRouter) -> ServedRouter:
        try:
            definition = Router.model_validate(router.definition)
        except ValidationError as error:  # of a newer server
            raise RouterRefused("definition", validation_lines(error)[0]) from None
        return self.builder.build(definition, router.revision)

    def _take_over(self, stored: Mapping[UUID, _Entry], ids: Mapping[str, UUID]) -> None:
        found = {name: stored[id].served for name, id in ids.items()}
        served = {name: each for name, each in found.items() if each is not None}
        now = {**served, **self.configured}
        changed = [each.label for name, each in now.items() if self._served.get(name) is not each]
        gone = [name for name in self._served if name not in now]
        if changed or gone:
            log.info("routers_changed", changed=changed[:20], gone=gone[:20])
        for name in ids.keys() & self.configured.keys() - self._ids.keys():
            log.warning("router_shadowed", router=name)
        self._served = now
        self._stored, self._ids = stored, ids
        self._failed.clear()

    def _key(self, reference: str) -> tuple[UUID, int] | None:
        """Of a revision of a stored router that is served here."""
        match = _PIN.fullmatch(reference)
        if match is None or match[1] in self.configured or match[1] not in self._ids:
            return None
        return self._ids[match[1]], int(match[2])

    def _known(self, key: tuple[UUID, int]) -> bool:
        return key in self._failed or self._at(key) is not None

    def _at(self, key: tuple[UUID, int]) -> ServedRouter | None:
        entry = self._stored.get(key[0])
        if entry is not None and entry.served is not None and entry.served.revision == key[1]:
            return entry.served
        return self._pinned.get(key)

    async def _fetch(self, key: tuple[UUID, int]) -> None:
        if self.store is None or not self.store.answers:
            raise storage_unavailable()
        try:
            router = await self.store.revision(*key)
            self._pinned[key] = self._build(router)
        except DatabaseDown:
            raise storage_unavailable() from None
        except NotStored:
            self._failed[key] = None
        except RouterRefused as refused:
            self._failed[key] = refused

    async def _poll(self) -> None:
        with suppress(DatabaseDown):  # which the database has logged
            await self.reload()


def _unusable(reference: str, reason: str) -> ApiError:
    return ApiError(
        503,
        f"The router {clipped(reference)!r} cannot be served by this server: {reason}",
        "server_error",
        param="model",
        code="router_unusable",
    )
