"""A checkpoint folder, checked and loaded; whatever cannot be served is refused with its reason.

A folder holds `manifest.json`, `tokenizer.json`, `pointer.safetensors` for the pointer read-out,
and a LoRA adapter to be put on a base model or a full transformers model. Weights are read from
safetensors alone and no code of a checkpoint is ever run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from routing.encoder import TEXTS_A_TURN
from routing.errors import UnsupportedCheckpoint
from routing.manifest import (
    GeneratedReadOut,
    IdentifierReadOut,
    PointerReadOut,
    load_manifest,
)
from routing.pointer import POINTER_FILE, PointerHead
from serving.engine.contract import Contract, require
from serving.engine.encoder import Embedder, load_encoder
from serving.engine.forward import Backbone, backbone_of
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
    weights = load_weights(contract, base)
    if head is None:
        strategy = _identifier_strategy(contract, weights.model)
        return RoutingModel(backbone_of(weights.model.base_model), strategy)
    assert isinstance(read_out, PointerReadOut)
    embedder = None
    if contract.manifest.encoder is not None:
        embedder = Embedder(weights.encoder, contract.manifest.encoder, contract.folder)
    backbone = backbone_of(weights.model.base_model)
    return RoutingModel(backbone, PointerStrategy(head, read_out.lines), embedder)


@dataclass(frozen=True)
class Weights:
    """The language model whole, an adapter merged into it, and the encoder if there is one."""

    model: Any
    encoder: Any


def load_weights(contract: Contract, base: Path | None) -> Weights:
    """Weights of a checkpoint, in float32; raises UnsupportedCheckpoint as `load_model` does."""
    folder, manifest = contract.folder, contract.manifest
    load_manifest(folder)
    source = _weights_folder(contract, base)
    _check_config(contract, source)
    model = _load_causal(source, manifest.base.layers if source != folder else None)
    encoder = None
    if manifest.encoder is not None:
        # Where training had it, so that an adapter finds it.
        model.encoder = load_encoder(manifest.encoder, folder)
    if manifest.weights == "adapter":
        model = _merge_adapter(model, folder)
    if manifest.encoder is not None:
        encoder = model.encoder
        del model.encoder
        encoder.requires_grad_(False)
    model.requires_grad_(False)
    return Weights(model, encoder)


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


def _check_config(contract: Contract, source: Path) -> None:
    manifest = contract.manifest
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and its own
        raise UnsupportedCheckpoint(f"cannot read the model in {source}: {error}") from None
    for what, found, expected in (
        ("hidden size", config.hidden_size, manifest.base.hidden_size),
        ("vocabulary", config.vocab_size, manifest.base.vocabulary),
    ):
        if found != expected:
            raise UnsupportedCheckpoint(
                f"the model in {source} has {what} {found}, the manifest's base "
                f"{manifest.base.name} has {expected}"
            )
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and context < manifest.budget.max_tokens:
        raise UnsupportedCheckpoint(
            f"the model in {source} reads {context} tokens, the budget is "
            f"{manifest.budget.max_tokens}"
        )
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise UnsupportedCheckpoint(
            f"the model in {source} has attention of kinds {', '.join(sorted(kinds))}; the cache "
            "holds full attention only"
        )


def _load_causal(source: Path, layers: int | None) -> Any:
    transformers_logging.disable_progress_bar()
    shape: dict[str, int] = {}
    if layers is not None:
        # The base's weights above the last layer kept are left out on purpose: no report of them.
        shape["num_hidden_layers"] = layers
        transformers_logging.set_verbosity_error()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **shape,
        )
    except Exception as error:
        raise UnsupportedCheckpoint(f"cannot load the model in {source}: {error}") from None
    # transformers fills gaps with random numbers and a warning; a router must not run on those.
    missing = sorted(info["missing_keys"])
    if missing:
        raise UnsupportedCheckpoint(
            f"the model in {source} lacks {len(missing)} weights, {missing[0]} among them"
        )
    return model.eval()


def _merge_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel, get_peft_model_state_dict

    with safe_open(folder / ADAPTER_FILES[1], framework="numpy") as file:
        stored = set(file.keys())
    try:
        # Adapters stored in half precision are cast up on loading, so the merge is in float32.
        adapted = PeftModel.from_pretrained(
            model, folder, torch_device="cpu", autocast_adapter_dtype=True
        )
        expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        # PEFT only warns about what does not match, and leaves it at its initial zeros.
        odd = sorted(expected ^ stored)
        if not odd:
            return adapted.merge_and_unload(safe_merge=True).eval()
    except Exception as error:
        raise UnsupportedCheckpoint(
            f"cannot put the adapter of {folder} on its base: {error}"
        ) from (None)
    raise UnsupportedCheckpoint(
        f"the adapter of {folder} does not fit its base: {len(odd)} weights without counterpart, "
        f"{odd[0]} among them"
    )


def _identifier_strategy(contract: Contract, model: Any) -> IdentifierStrategy:
    read_out = contract.manifest.read_out
    assert isinstance(read_out, IdentifierReadOut)
    tokens = tuple(contract.tokenizer.encode(text)[0] for text in read_out.identifiers)
    projection = model.get_output_embeddings()
    rows = projection.weight[list(tokens)].float().clone().numpy()
    bias = projection.bias
    return IdentifierStrategy(
        tokens, rows, None if bias is None else bias[list(tokens)].float().clone().numpy()
    )
