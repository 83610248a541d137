"""Prefixes of the routers in use, laid out once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

from routing.layout import Layout, RoutePrefix
from routing.tasks import Route


class PrefixMemo:
    """The most recently used prefixes, by a digest of their routes. Thread-safe.

    Keyed by digest because inline preferences may bring long descriptions that nobody needs twice.
    """

    def __init__(self, layout: Layout, size: int = 256) -> None:
        self._layout = layout
        self._size = size
        self._lock = threading.Lock()
        self._prefixes: OrderedDict[bytes, RoutePrefix] = OrderedDict()

    def __call__(self, routes: Sequence[Route]) -> RoutePrefix:
        """The prefix of `routes`; raises InvalidRequest for routes that cannot be laid out."""
        key = routes_digest(routes)
        with self._lock:
            if key in self._prefixes:
                self._prefixes.move_to_end(key)
                return self._prefixes[key]
        prefix = self._layout.prefix(routes)
        with self._lock:
            self._prefixes[key] = prefix
            while len(self._prefixes) > self._size:
                self._prefixes.popitem(last=False)
        return prefix


def routes_digest(routes: Sequence[Route], *texts: str) -> bytes:
    """What tells sets of routes apart, and with `texts` what is asked among them."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (*texts, *(part for route in routes for part in (route.name, route.description))):
        data = text.encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.digest()
