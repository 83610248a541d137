"""Where the server keeps what outlives it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from serving.config_base import EnvName, Seconds, Strict

SQLITE_FILE = "sqlite:///"


class StorageConfig(Strict):
    """A database for routers, keys and records.

    Routers that `/v2/gen-ai/models/routers` keeps here stand beside those of the configuration
    file. The file wins: its routers cannot be changed through the API, and a stored router of the
    same name is not served while the file has it.
    """

    url: str = "sqlite:///pointsman.db"
    """`sqlite:///file`, relative to the configuration file, or `postgresql://user@host/database`,
    with libpq's parameters, as in `?sslmode=require`."""
    url_env: EnvName = "POINTSMAN_DATABASE_URL"
    """Variable whose value replaces `url`; a password belongs there. A relative file in it is
    relative to the working directory."""
    connections: Annotated[int, Field(ge=1, le=100)] = 5
    """To PostgreSQL, of each worker process."""
    timeout_s: Seconds = 5
    """To connect, for a statement, and for SQLite's lock."""
    reload_s: Seconds = 1
    """How often each replica looks for what others have changed."""

    def within(self, folder: Path) -> Self:
        """With SQLite's file, where its path is relative, in `folder`."""
        file = self.url.removeprefix(SQLITE_FILE)
        if file == self.url or not file or file.startswith((":", "/")):
            return self
        return self.model_copy(update={"url": f"{SQLITE_FILE}{(folder / file).resolve()}"})
