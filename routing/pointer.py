"""The pointer read-out: match the state of a user turn with the state of each route's line.

score = exp(log_scale) · cos(Q·turn_state + q, K·route_state + k), in the spirit of pointer networks
(arXiv 1506.03134). Route states depend on the routes alone and are projected once for each router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file

from routing.errors import UnsupportedCheckpoint

POINTER_FILE = "pointer.safetensors"
Array = NDArray[np.float32]


LineState = Literal["end", "mean"]
"""A line's state: that of its last token, or the mean over its tokens, which says more about the
line in a model that was not trained to sum it up."""


def line_states(
    states: ArrayLike, starts: Sequence[int], ends: Sequence[int], kind: LineState
) -> Array:
    """States [K+1, hidden] of lines, from the states [tokens, hidden] of a whole prefix.

    `starts` and `ends` are the positions of each line's first and last token.
    """
    array = np.asarray(states, dtype=np.float32)
    if kind == "end":
        return array[list(ends)]
    return np.stack([array[a : b + 1].mean(axis=0) for a, b in zip(starts, ends, strict=True)])


@dataclass(frozen=True)
class PointerHead:
    """Two learned projections [dim, features] with biases [dim], and the log of a learned scale.

    The features are the states, with an encoder's vectors behind them (`routing.encoder`) or not.
    """

    query: Array
    key: Array
    log_scale: float
    query_bias: Array | float = 0.0
    key_bias: Array | float = 0.0

    @classmethod
    def load(cls, path: str | Path) -> PointerHead:
        """Read `pointer.safetensors`; raises UnsupportedCheckpoint for a missing or odd file."""
        try:
            tensors = load_file(path)
            query, key = tensors["query.weight"], tensors["key.weight"]
            scale = float(tensors["log_scale"].reshape(()))
        except Exception as error:  # safetensors raises its own error, KeyError and OSError
            raise UnsupportedCheckpoint(f"cannot read pointer head {path}: {error!r}") from None
        if query.ndim != 2 or key.ndim != 2 or len(query) != len(key):
            raise UnsupportedCheckpoint(
                f"pointer head {path} has shapes {query.shape}, {key.shape}"
            )
        # Heads of the first release have no biases.
        biases = [
            np.asarray(tensors.get(f"{name}.bias", np.zeros(len(query))), dtype=np.float32)
            for name in ("query", "key")
        ]
        if any(bias.shape != (len(query),) for bias in biases):
            raise UnsupportedCheckpoint(f"pointer head {path} has biases of another size")
        return cls(query.astype(np.float32), key.astype(np.float32), scale, *biases)

    def keys(self, route_states: ArrayLike) -> Array:
        """Unit keys [K+1, dim] of routes [K+1, features]."""
        return _unit(np.asarray(route_states, dtype=np.float32) @ self.key.T + self.key_bias)

    def scores(self, turn_states: ArrayLike, keys: Array) -> Array:
        """Scores [..., K+1] of turns [..., features] against unit keys."""
        queries = _unit(np.asarray(turn_states, dtype=np.float32) @ self.query.T + self.query_bias)
        return np.asarray(np.exp(self.log_scale) * (queries @ keys.T), dtype=np.float32)


def _unit(vectors: Array) -> Array:
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-6), dtype=np.float32)
