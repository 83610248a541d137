"""Vectors of texts by the checkpoint's sentence encoder; see `routing.encoder`."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from routing.encoder import EncoderRef, EncoderTokenizer, find_encoder
from routing.errors import UnsupportedCheckpoint
from serving.engine.bert import BertStates

CHUNK = 16
"""Texts of one pass, at most; of like length, because `PaddedStates` fills up to the longest."""

Array = NDArray[np.float32]


def load_encoder(reference: EncoderRef, checkpoint: Path) -> Any:
    """The encoder that a manifest names, without a pooling layer; raises UnsupportedCheckpoint."""
    folder = find_encoder(reference.name, checkpoint)
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


class States(Protocol):
    """An encoder on CPU."""

    def __call__(self, texts: Sequence[Sequence[int]]) -> Sequence[Any]:
        """Final states [tokens, hidden] of each text, from its token ids, in float32."""
        ...


class PaddedStates:
    """Any encoder of transformers, by its own code, all texts filled up to the longest."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def __call__(self, texts: Sequence[Sequence[int]]) -> Sequence[Any]:
        lengths = torch.tensor([len(text) for text in texts])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask] = torch.tensor([token for text in texts for token in text])
        output = self._model(input_ids=ids, attention_mask=mask.long())
        states = output.last_hidden_state
        return [row[: len(text)] for row, text in zip(states, texts, strict=True)]


class Embedder:
    """Unit vectors of texts; the last `size` different ones are kept. Not thread-safe.

    Kept by digest: a conversation's texts may be long, and nobody needs them again.
    """

    def __init__(self, model: Any, reference: EncoderRef, checkpoint: Path, size: int = 8192):
        self._states: States = BertStates(model) if BertStates.fits(model) else PaddedStates(model)
        self._tokenizer = EncoderTokenizer(
            find_encoder(reference.name, checkpoint) / "tokenizer.json", reference.max_tokens
        )
        self._width = reference.hidden_size
        self._size = size
        self._kept: OrderedDict[bytes, Array] = OrderedDict()

    def __call__(self, texts: Sequence[str]) -> Array:
        """Vectors [len(texts), hidden]; zeros for an empty text."""
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        found: dict[bytes, Array] = {}
        new: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if not text:
                found[key] = np.zeros(self._width, dtype=np.float32)
            elif key in self._kept:
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
            else:
                new[key] = text
        fresh = dict(zip(new, self._compute(list(new.values())), strict=True))
        self._kept.update(fresh)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        found |= fresh
        return np.stack([found[key] for key in keys])

    def forget(self) -> None:
        """Let go of every vector."""
        self._kept.clear()

    def _compute(self, texts: list[str]) -> list[Array]:
        tokens = [self._tokenizer(text) for text in texts]
        order = sorted(range(len(texts)), key=lambda index: len(tokens[index]))
        vectors: dict[int, Array] = {}
        for start in range(0, len(order), CHUNK):
            chunk = order[start : start + CHUNK]
            states = self._states([tokens[index] for index in chunk])
            for index, rows in zip(chunk, states, strict=True):
                mean = rows.numpy().mean(axis=0)
                vectors[index] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return [vectors[index] for index in range(len(texts))]


SHORTLIST_ENCODER = EncoderRef(
    name="all-MiniLM-L6-v2", revision="any", hidden_size=384, max_tokens=96
)


def shortlist_embedder() -> Embedder:
    """The encoder that shortlists, whatever the checkpoint; raises UnsupportedCheckpoint."""
    folder = find_encoder(SHORTLIST_ENCODER.name)
    return Embedder(load_encoder(SHORTLIST_ENCODER, folder), SHORTLIST_ENCODER, folder)
