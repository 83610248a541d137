"""Sections of the configuration about the process: where it listens, and how it ends."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, FiniteFloat

from serving.config_base import Seconds, Strict


class Listen(Strict):
    """Where the server listens, and with how many processes."""

    host: str = "127.0.0.1"
    """Address; 0.0.0.0 for all of IPv4."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0 picks a free one."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that answer requests. Of more than one, a further process holds the engine."""


class DrainConfig(Strict):
    """What happens to requests under way when the server is told to stop."""

    delay_s: Annotated[FiniteFloat, Field(ge=0)] = 0
    """Seconds in which new requests are still taken while `/readyz` says 503 already, so that load
    balancers can turn elsewhere."""
    timeout_s: Seconds = 30
    """Then requests under way may take so long to end; streams that are left are told an error."""
