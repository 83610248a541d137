"""What a process must know of an engine that another process runs: which routes it can read."""

from __future__ import annotations

from collections.abc import Sequence

from routing.conversation import Conversation
from routing.decision import Decision
from routing.layout import in_reading_order
from routing.manifest import GeneratedReadOut
from routing.tasks import Route
from serving.config import EngineConfig
from serving.engine.base import Engine, EngineError, EngineFacts, EngineMetrics
from serving.engine.contract import read_contract
from serving.engine.prefixes import PrefixMemo
from serving.engine.shortlist import Embed, ShortlistingEngine
from serving.engine.vllm.generated import check_generated_routes


class UnloadedEngine:
    """A checkpoint without its weights: it checks routes as the engine does, and decides nothing.

    Raises UnsupportedCheckpoint for a folder that is none.
    """

    def __init__(self, config: EngineConfig) -> None:
        contract = read_contract(config.checkpoint)
        self.name = "embedded" if config.kind == "embedded" else "vllm"
        self.version = contract.manifest.version
        self._facts = EngineFacts.of(self.name, contract.manifest)
        self._generated = contract.manifest.read_out
        self._prefixes = PrefixMemo(contract.layout)

    def facts(self) -> EngineFacts:
        return self._facts

    def check_routes(self, routes: Sequence[Route]) -> None:
        """Raise InvalidRequest if these routes cannot be laid out."""
        if isinstance(self._generated, GeneratedReadOut):
            check_generated_routes(self._generated, routes)
        else:
            self._prefixes(in_reading_order(routes)[0])

    async def start(self) -> None:
        raise EngineError("this engine has no weights")

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        raise EngineError("this engine has no weights")

    def trouble(self) -> str | None:
        return None

    def metrics(self) -> EngineMetrics:
        return EngineMetrics()

    async def close(self) -> None:
        pass


def unloaded_engine(config: EngineConfig) -> Engine:
    """The configured engine as far as its routes go; more than it reads are shortlisted there."""

    def load() -> Embed:
        raise EngineError("this engine has no weights")

    return ShortlistingEngine(UnloadedEngine(config), load, config.shortlist_above)
