"""Vectors of texts by the checkpoint's sentence encoder; see `routing.encoder`."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routing.encoder import EncoderRef, EncoderTokenizer, find_encoder
from serving.engine.bert import BertStates
from serving.engine.plain import plain_encoder

CHUNK = 16
"""Texts of one pass, at most; of like length, because some encoders fill up to the longest."""

Array = NDArray[np.float32]


class States(Protocol):
    """An encoder on CPU."""

    def __call__(self, texts: Sequence[Sequence[int]]) -> Sequence[Any]:
        """Final states [tokens, hidden] of each text, from its token ids, in float32."""
        ...


def load_states(reference: EncoderRef, folder: Path) -> States:
    """The encoder in `folder`; raises UnsupportedCheckpoint."""
    found = plain_encoder(reference, folder)
    if found is not None:
        return BertStates(*found)
    from serving.engine.any_model import PaddedStates
    from serving.engine.whole import load_encoder

    return PaddedStates(load_encoder(reference, folder))


class Embedder:
    """Unit vectors of texts; the last `size` different ones are kept. Not thread-safe.

    Kept by digest: a conversation's texts may be long, and nobody needs them again.
    """

    def __init__(self, states: States, reference: EncoderRef, checkpoint: Path, size: int = 8192):
        self._states = states
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
    return Embedder(load_states(SHORTLIST_ENCODER, folder), SHORTLIST_ENCODER, folder)
