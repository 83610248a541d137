"""Tells systemd, if it started us, how far we are: sd_notify(3)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def tell_service_manager(state: str) -> None:
    """Send `READY=1` or `STOPPING=1`; nothing happens where nobody asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode(), address)
