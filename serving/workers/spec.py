"""What a process under the supervisor is to be; light, for the supervisor's own sake."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.config import ServerConfig, with_engine
from serving.engine.base import Engine, EngineFactory
from serving.errors import ConfigError

CONTROL_SOCKET, ENGINE_SOCKET = "control", "engine"

Role = Literal["worker", "engine"]


@dataclass(frozen=True, slots=True)
class Child:
    """A worker, or the engine's process."""

    role: Role
    name: str
    folder: Path
    """Of the sockets."""
    config: ServerConfig
    make_engine: EngineFactory | None
    """Of the engine that replaces the configured one."""
    checkpoint: str | None
    """That has taken over since the server was started."""

    def engine(self) -> Engine:
        """The engine, to be started."""
        if self.make_engine is not None:
            return self.make_engine()
        from serving.engine.configured import switchable_engine

        config = self.config.engine
        if config is not None and self.checkpoint is not None:
            config = with_engine(config, None, Path(self.checkpoint), None)
        return switchable_engine(config, os.environ)

    def unloaded(self, checkpoint: Path | None) -> Engine:
        """An engine that is never started: it knows which routes can be read."""
        if self.make_engine is not None:
            return self.make_engine()
        if self.config.engine is None:
            raise ConfigError("engine: is required")
        from serving.engine.unloaded import unloaded_engine

        return unloaded_engine(with_engine(self.config.engine, None, checkpoint, None))
