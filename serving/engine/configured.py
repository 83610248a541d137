"""The engine that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from routing.manifest import GeneratedReadOut
from serving.config import (
    EmbeddedConfig,
    EndpointsConfig,
    EngineConfig,
    VllmConfig,
    with_engine,
)
from serving.engine.base import Engine
from serving.engine.shortlist import Embed, ShortlistingEngine
from serving.engine.switch import SwitchableEngine
from serving.errors import ConfigError

if TYPE_CHECKING:
    from serving.engine.contract import Contract
    from serving.engine.vllm.reader import StateReader


def switchable_engine(config: EngineConfig | None, environ: Mapping[str, str]) -> Engine:
    """The configured engine, whose checkpoint can be changed while it decides.

    One at endpoints cannot: what they serve is changed there. Raises ConfigError for none.
    """
    if config is None:
        raise ConfigError("engine: is required")
    engine = _shortlisting(config, environ)
    if isinstance(config, EndpointsConfig):
        return engine

    def build(checkpoint: Path) -> Engine:
        return _shortlisting(with_engine(config, None, checkpoint, None), environ)

    return SwitchableEngine(engine, build)


def _shortlisting(config: EngineConfig, environ: Mapping[str, str]) -> Engine:
    def load() -> Embed:
        from serving.engine.encoder import shortlist_embedder

        return shortlist_embedder()

    return ShortlistingEngine(configured_engine(config, environ), load, config.shortlist_above)


def configured_engine(config: EngineConfig, environ: Mapping[str, str]) -> Engine:
    """What runs the model, by itself; raises UnsupportedCheckpoint for what cannot be served.

    Imports lie inside, so that a server whose model is elsewhere needs no torch.
    """
    if isinstance(config, EmbeddedConfig):
        from serving.engine.embedded import EmbeddedEngine

        return EmbeddedEngine(
            config.checkpoint,
            config.base,
            threads=config.threads,
            cache_bytes=config.cache_mb * 2**20,
            max_waiting=config.max_waiting,
        )
    from serving.engine.contract import read_contract
    from serving.engine.merged import load_embedder, merged_folder

    contract = read_contract(config.checkpoint)
    generated = isinstance(contract.manifest.read_out, GeneratedReadOut)
    # One more than the longest sequence: vLLM keeps room for a next token.
    context = None if generated else contract.manifest.budget.max_tokens + 1
    folder = partial(merged_folder, contract, config.base)
    embedder = None
    if contract.manifest.encoder is not None:
        embedder = partial(load_embedder, contract, config.base)
    if isinstance(config, EndpointsConfig):
        from serving.engine.vllm.endpoints import EndpointReader

        key = environ.get(config.api_key_env) if config.api_key_env else None
        remote = EndpointReader(
            config.urls,
            least_context=context,
            model=config.model,
            api_key=key,
            timeout_s=config.timeout_s,
        )
        return _over(contract, remote, embedder, config)
    from serving.engine.vllm.in_process import InProcessReader, VllmSettings

    settings = VllmSettings(
        max_model_len=context,
        read_out=contract.manifest.read_out.kind,
        dtype=config.dtype,
        hang_s=config.hang_s,
        options=config.options,
    )
    reader = InProcessReader(folder, settings)
    return _over(contract, reader, embedder, config)


def _over(
    contract: Contract,
    reader: StateReader,
    embedder: Callable[[], Embed] | None,
    config: VllmConfig | EndpointsConfig,
) -> Engine:
    """The engine over a reader that suits the checkpoint's read-out."""
    from serving.engine.vllm.engine import VllmEngine
    from serving.engine.vllm.generated import GeneratingEngine

    if isinstance(contract.manifest.read_out, GeneratedReadOut):
        return GeneratingEngine(contract, reader, max_waiting=config.max_waiting)
    return VllmEngine(contract, reader, load_embedder=embedder, max_waiting=config.max_waiting)
