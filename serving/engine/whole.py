"""Whole models by transformers and PEFT, an adapter merged: any architecture, any adapter.

Apart from the rest because importing the two takes seconds, which plain checkpoints spare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from routing.encoder import EncoderRef, find_encoder
from routing.errors import UnsupportedCheckpoint
from serving.engine.contract import Contract
from serving.engine.lora import WEIGHTS_FILE


@dataclass(frozen=True)
class Weights:
    """The language model whole, an adapter merged into it, and the encoder if there is one."""

    model: Any
    encoder: Any


def load_weights(contract: Contract, source: Path) -> Weights:
    """Weights of a checkpoint in float32, those of its language model, or of its base, in `source`.

    Raises UnsupportedCheckpoint for files missing or changed and sizes that do not fit each other.
    """
    folder, manifest = contract.folder, contract.manifest
    model = load_causal(source, manifest.base.layers if source != folder else None)
    encoder = None
    if manifest.encoder is not None:
        # Where training had it, so that an adapter finds it.
        model.encoder = load_encoder(manifest.encoder, find_encoder(manifest.encoder.name, folder))
    if manifest.weights == "adapter":
        model = _merge_adapter(model, folder)
    if manifest.encoder is not None:
        encoder = model.encoder
        del model.encoder
        encoder.requires_grad_(False)
    model.requires_grad_(False)
    return Weights(model, encoder)


def read_config(source: Path) -> Mapping[str, Any]:
    """A model's `config.json` as transformers understands it; raises UnsupportedCheckpoint."""
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and its own
        raise UnsupportedCheckpoint(f"cannot read the model in {source}: {error}") from None
    found: Mapping[str, Any] = config.to_dict()
    return found


def load_encoder(reference: EncoderRef, folder: Path) -> Any:
    """The encoder in `folder`, without a pooling layer; raises UnsupportedCheckpoint."""
    try:
        model, info = AutoModel.from_pretrained(
            folder,
            add_pooling_layer=False,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and its own
        raise UnsupportedCheckpoint(f"cannot load the encoder in {folder}: {error}") from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise UnsupportedCheckpoint(
            f"the encoder in {folder} lacks {len(missing)} weights, {missing[0]} among them"
        )
    if model.config.hidden_size != reference.hidden_size:
        raise UnsupportedCheckpoint(
            f"the encoder in {folder} has hidden size {model.config.hidden_size}, the manifest "
            f"says {reference.hidden_size}"
        )
    return model.eval()


def load_causal(source: Path, layers: int | None = None) -> Any:
    """The causal model in `source`, its first `layers`; raises UnsupportedCheckpoint."""
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
    with safe_open(folder / WEIGHTS_FILE, framework="numpy") as file:
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
