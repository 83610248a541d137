"""A checkpoint folder, checked and loaded; whatever cannot be served is refused with its reason.

A folder holds `manifest.json`, `tokenizer.json`, `pointer.safetensors` for the pointer read-out,
and a LoRA adapter to be put on a base model or a full transformers model. Weights are read from
safetensors alone and no code of a checkpoint is ever run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.encoder import TEXTS_A_TURN
from routing.errors import UnsupportedCheckpoint
from routing.manifest import (
    GeneratedReadOut,
    IdentifierReadOut,
    Manifest,
    PointerReadOut,
    load_manifest,
)
from routing.pointer import POINTER_FILE, PointerHead
from serving.engine.contract import Contract, require
from serving.engine.encoder import Embedder, States
from serving.engine.forward import Backbone
from serving.engine.llama import LlamaShape
from serving.engine.plain import PlainModel, read_config
from serving.engine.readout import IdentifierStrategy, PointerStrategy, ReadOutStrategy

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class RoutingModel:
    """A loaded checkpoint: `backbone` maps token ids to final hidden states, in float32."""

    backbone: Backbone
    read_out: ReadOutStrategy
    embedder: Embedder | None = None
    """Of a checkpoint whose pointer reads an encoder's vectors too."""


def load_model(contract: Contract, base: Path | None) -> RoutingModel:
    """Weights and read-out of a checkpoint, on `base` if it is an adapter.

    Raises UnsupportedCheckpoint with the reason: files missing or changed, a base that is not the
    manifest's, sizes that do not fit each other.
    """
    read_out = contract.manifest.read_out
    if isinstance(read_out, GeneratedReadOut):
        raise UnsupportedCheckpoint(
            f"{contract.folder} answers by generating {read_out.format} JSON, which only vLLM "
            "serves: engine.kind vllm or endpoints"
        )
    head = pointer_head(contract) if isinstance(read_out, PointerReadOut) else None
    source = checked_source(contract, base)
    plain = PlainModel.of(contract, source)
    parts = _Parts.other(contract, source) if plain is None else _Parts.plain(plain)
    if head is None:
        return RoutingModel(parts.backbone, _identifier_strategy(contract, parts))
    assert isinstance(read_out, PointerReadOut)
    embedder = None
    if contract.manifest.encoder is not None:
        assert parts.encoder is not None
        embedder = Embedder(parts.encoder, contract.manifest.encoder, contract.folder)
    return RoutingModel(parts.backbone, PointerStrategy(head, read_out.lines), embedder)


@dataclass(frozen=True)
class _Parts:
    """A checkpoint's models, however they were loaded."""

    backbone: Backbone
    encoder: States | None
    output: Callable[[Sequence[int]], tuple[Any, Any]]
    """Of tokens the rows of the output projection, and of its bias or None."""

    @classmethod
    def plain(cls, model: PlainModel) -> _Parts:
        def output(tokens: Sequence[int]) -> tuple[Any, Any]:
            return model.output_rows(tokens), None

        return cls(model.backbone(), model.encoder_states(), output)

    @classmethod
    def other(cls, contract: Contract, source: Path) -> _Parts:
        """By transformers; imported here, because that takes seconds."""
        from serving.engine.any_model import PaddedStates, TransformersBackbone
        from serving.engine.whole import load_weights

        weights = load_weights(contract, source)
        projection = weights.model.get_output_embeddings()

        def output(tokens: Sequence[int]) -> tuple[Any, Any]:
            rows, bias = projection.weight[list(tokens)], projection.bias
            return rows, None if bias is None else bias[list(tokens)]

        encoder = None if weights.encoder is None else PaddedStates(weights.encoder)
        return cls(TransformersBackbone(weights.model.base_model), encoder, output)


def pointer_head(contract: Contract) -> PointerHead:
    """The head of a checkpoint with the pointer read-out; raises UnsupportedCheckpoint."""
    read_out = contract.manifest.read_out
    assert isinstance(read_out, PointerReadOut)
    path = contract.folder / POINTER_FILE
    require(contract.folder, [POINTER_FILE])
    head = PointerHead.load(path)
    hidden, encoder = contract.manifest.base.hidden_size, contract.manifest.encoder
    width = 0 if encoder is None else encoder.hidden_size
    for found, expected in (
        (head.query.shape, (read_out.dim, hidden + TEXTS_A_TURN * width)),
        (head.key.shape, (read_out.dim, hidden + width)),
    ):
        if found != expected:
            raise UnsupportedCheckpoint(
                f"{path} projects {found}, the manifest says [dim, features] = {expected}"
            )
    return head


def checked_source(contract: Contract, base: Path | None) -> Path:
    """Where the language model's weights are, or those of its base.

    Raises UnsupportedCheckpoint for changed files, and for a model that is not the manifest's.
    """
    load_manifest(contract.folder)
    source = _weights_folder(contract, base)
    config = read_config(source)
    if not LlamaShape.fits(config):
        from serving.engine import whole

        config = whole.read_config(source)
    _check_config(contract.manifest, source, config)
    return source


def _weights_folder(contract: Contract, base: Path | None) -> Path:
    folder, manifest = contract.folder, contract.manifest
    if manifest.weights == "merged":
        require(folder, ["config.json"])
        return folder
    require(folder, ADAPTER_FILES)
    wanted = f"{folder} is an adapter on {manifest.base.name} ({manifest.base.revision})"
    if base is None:
        raise UnsupportedCheckpoint(f"{wanted}; no base folder was given")
    if not (base / "config.json").is_file():
        raise UnsupportedCheckpoint(f"{wanted}; the base folder {base} holds no config.json")
    return base


def _check_config(manifest: Manifest, source: Path, config: Mapping[str, Any]) -> None:
    for what, found, expected in (
        ("hidden size", config.get("hidden_size"), manifest.base.hidden_size),
        ("vocabulary", config.get("vocab_size"), manifest.base.vocabulary),
    ):
        if found != expected:
            raise UnsupportedCheckpoint(
                f"the model in {source} has {what} {found}, the manifest's base "
                f"{manifest.base.name} has {expected}"
            )
    context = config.get("max_position_embeddings")
    if context is not None and context < manifest.budget.max_tokens:
        raise UnsupportedCheckpoint(
            f"the model in {source} reads {context} tokens, the budget is "
            f"{manifest.budget.max_tokens}"
        )
    kinds = set(config.get("layer_types") or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UnsupportedCheckpoint(
            f"the model in {source} has attention of kinds {', '.join(sorted(kinds))}; the cache "
            "holds full attention only"
        )


def _identifier_strategy(contract: Contract, parts: _Parts) -> IdentifierStrategy:
    read_out = contract.manifest.read_out
    assert isinstance(read_out, IdentifierReadOut)
    tokens = tuple(contract.tokenizer.encode(text)[0] for text in read_out.identifiers)
    rows, bias = (
        None if part is None else part.float().clone().numpy() for part in parts.output(tokens)
    )
    assert rows is not None
    return IdentifierStrategy(tokens, rows, bias)
