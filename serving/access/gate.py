"""Who may pass, told from a request's head alone: its body is not read before.

Whatever path is not named here is an admin's, so a route that someone adds is closed until it is
opened on purpose.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from serving.access.keyring import Keyring
from serving.access.keys import PREFIX, presented
from serving.access.limit_headers import refused
from serving.access.principal import ANONYMOUS, LOCAL_OWNER, Principal
from serving.access.rates import Rates, Reading
from serving.config_access import AccessConfig
from serving.errors import ApiError

ADMIN_KEY_ENV = "POINTSMAN_ADMIN_KEY"
"""Variable of a key that may do everything."""
OPEN = frozenset({"/healthz", "/readyz"})
METRICS = "/metrics"
CALLERS = ("/v1/", "/routing/v1/")
CALLERS_TOO = frozenset({"/openapi.json"})
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via"})
_STORED = PREFIX.encode()
_COUNTED = frozenset({"POST"})

State = Literal["none", "loaded", "unknown"]
"""Of stored keys: there is no place for any, they have been read, or not yet."""


class Gate:
    """Admits requests. `host` is the address that the server listens on."""

    def __init__(
        self,
        config: AccessConfig,
        host: str,
        keyring: Keyring,
        rates: Rates,
        *,
        caught_up: Callable[[], Awaitable[None]],
        state: Callable[[], State],
    ) -> None:
        self._config = config
        self._loopback = is_loopback(host)
        self._keyring = keyring
        self._rates = rates
        self._caught_up = caught_up
        self._state = state

    async def admit(self, scope: Scope, readings: list[Reading]) -> Principal:
        """Who makes a request that may be answered; raises ApiError 401, 403, 429 or 503.

        The key's bucket of requests, if it has one, is put among the readings.
        """
        path: str = scope["path"]
        if path in OPEN or (path == METRICS and self._config.metrics == "open"):
            return ANONYMOUS
        given = presented(scope["headers"])
        principal = await self._bearer(given) if given is not None else None
        if principal is None:
            principal = self._keyless(scope)
            if path == METRICS and self._config.keyless == "loopback":
                return principal
        if not (principal.is_admin or path.startswith(CALLERS) or path in CALLERS_TOO):
            raise _not_an_admin(principal)
        limit = principal.limits.requests_per_minute
        if limit is not None and scope["method"] in _COUNTED:
            assert principal.key_id is not None
            reading = await self._rates.take(principal.key_id, "requests", limit, 1)
            readings.append(reading)
            if reading.wait_s > 0:
                raise refused(reading)
        return principal

    async def _bearer(self, key: bytes) -> Principal | None:
        """Whose a key is; None for one that means nothing here, while there are no keys."""
        principal = self._keyring.find(key)
        stored = key.startswith(_STORED)
        if principal is None and stored and self._state() != "none":
            # Another replica may have made it just now.
            await self._caught_up()
            principal = self._keyring.find(key)
        if principal is not None:
            return principal
        if stored and self._state() == "unknown":
            raise _not_yet()
        if stored or self._keyring.any_usable():
            raise _unauthorised("The API key is wrong, has expired or was revoked.")
        return None

    def _keyless(self, scope: Scope) -> Principal:
        keyless = self._config.keyless
        if keyless == "anywhere":
            return ANONYMOUS
        client = scope.get("client")
        if (
            keyless == "never"
            or not self._loopback
            or client is None
            or not is_loopback(client[0])
            # A proxy on this machine brings callers of others.
            or not _FORWARDED.isdisjoint(dict(scope["headers"]))
        ):
            raise self._none_given()
        _refuse_other_sites(Headers(scope=scope), rebound=not scope["path"].startswith(CALLERS))
        return ANONYMOUS if self._keyring.any_usable(admin=True) else LOCAL_OWNER

    def _none_given(self) -> ApiError:
        if self._state() == "unknown" and not self._keyring.any_usable():
            return _not_yet()
        return _unauthorised("An API key is needed: send authorization: Bearer, or x-api-key.")


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is this machine's alone."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _refuse_other_sites(headers: Headers, *, rebound: bool) -> None:
    """A browser on this machine asks for whichever page it shows: pages of other sites may not.

    `rebound` refuses, too, a host name of others that has come to mean this machine: a page's GETs
    of its own site bear no origin.
    """
    origin = headers.get("origin")
    try:
        hosts = [urlsplit(f"//{headers.get('host', '')}").hostname] if rebound else []
        if origin is not None:
            hosts.append(urlsplit(origin).hostname)
    except ValueError:
        hosts = [None]
    if not all(host is not None and is_loopback(host) for host in hosts):
        raise ApiError(
            403,
            "Without a key, only requests to localhost by no other site are answered.",
            "permission_error",
            code="foreign_site",
        )


def _unauthorised(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def _not_an_admin(principal: Principal) -> ApiError:
    if principal.key_id is None:
        return _unauthorised("An admin's key is needed.")
    return ApiError(403, "This key is no admin's.", "permission_error", code="admin_required")


def _not_yet() -> ApiError:
    return ApiError(
        503,
        "Keys cannot be checked yet: the database has not answered since the server started.",
        "server_error",
        code="keys_unavailable",
        headers={"retry-after": "1"},
    )
