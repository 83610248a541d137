"""Which parts of the server work, for `/readyz`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Trouble = Callable[[], str | None]
"""Why a part does not work now, in words for the owner; None if it does. Asked often: it must not
wait for anything."""
Status = Literal["ready", "degraded", "not ready", "draining"]
READY = "ready"


class Report(NamedTuple):
    """The state of all parts at one moment."""

    status: Status
    parts: dict[str, str]
    """By name: "ready", or what is wrong."""
    missing: dict[str, str]
    """What is wrong with the parts without which the server is not ready."""

    @property
    def takes_requests(self) -> bool:
        """Whether a load balancer should send any."""
        return self.status in ("ready", "degraded")


class Readiness:
    """The parts by name. Without a required one the server is not ready; without another it is
    degraded: it answers by what it knows."""

    def __init__(self, draining: Callable[[], bool]) -> None:
        self._draining = draining
        self._parts: dict[str, tuple[Trouble, bool]] = {}

    def add(self, name: str, trouble: Trouble, *, required: bool = False) -> None:
        """Let a part be reported."""
        self._parts[name] = (trouble, required)

    def report(self) -> Report:
        """Ask every part."""
        parts: dict[str, str] = {}
        missing: dict[str, str] = {}
        for name, (trouble, required) in self._parts.items():
            said = trouble()
            parts[name] = said or READY
            if said and required:
                missing[name] = said
        status: Status = "ready"
        if self._draining():
            status = "draining"
        elif missing:
            status = "not ready"
        elif any(state != READY for state in parts.values()):
            status = "degraded"
        return Report(status, parts, missing)
