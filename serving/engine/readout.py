"""How final hidden states become scores; one class for each read-out of the manifest.

A read-out first *prepares* a router: what it keeps of the prefix is cached with it. Scores of any
number of user turns follow from their states alone.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from routing.encoder import line_features, turn_features
from routing.layout import RoutePrefix
from routing.pointer import LineState, PointerHead, line_states

Array = NDArray[Any]


class ReadOutStrategy(Protocol):
    """Scores of decisions from final hidden states."""

    def prepare(self, prefix: RoutePrefix, states: Array, vectors: Array | None) -> Array:
        """What to keep of a router, from the states [tokens, hidden] of its whole prefix.

        `vectors` [K+1, encoder] are those of its lines, for a checkpoint with an encoder.
        """
        ...

    def scores(self, turn_states: Array, vectors: Array | None, prepared: Array) -> Array:
        """Scores [n, K+1] of turn states [n, hidden], and vectors [n, 3, encoder] of turns."""
        ...


class PointerStrategy:
    """Scaled cosine of projected states; keeps the routes' projected keys [K+1, dim]."""

    def __init__(self, head: PointerHead, lines: LineState) -> None:
        self._head = head
        self._lines = lines

    def positions(self, prefix: RoutePrefix) -> list[int]:
        """Tokens of a prefix whose states `prepare` looks at."""
        if self._lines == "end":
            return list(prefix.line_ends)
        spans = zip(prefix.line_starts, prefix.line_ends, strict=True)
        return [position for start, end in spans for position in range(start, end + 1)]

    def prepare(self, prefix: RoutePrefix, states: Array, vectors: Array | None) -> Array:
        lines = line_states(states, prefix.line_starts, prefix.line_ends, self._lines)
        return self._head.keys(lines if vectors is None else line_features(lines, vectors))

    def scores(self, turn_states: Array, vectors: Array | None, prepared: Array) -> Array:
        turns = turn_states if vectors is None else turn_features(turn_states, vectors)
        return self._head.scores(turns, prepared)


class IdentifierStrategy:
    """Logits of the identifiers' tokens; keeps the lines' rows in that small table.

    `tokens` are the identifiers' token ids, `rows` [identifiers, hidden] their rows of the output
    projection and `bias` [identifiers] theirs of its bias: the vocabulary's other rows are never
    multiplied.
    """

    def __init__(self, tokens: tuple[int, ...], rows: Array, bias: Array | None = None) -> None:
        self._row = {token: index for index, token in enumerate(tokens)}
        self._rows = rows
        self._bias = np.zeros(len(tokens), dtype=rows.dtype) if bias is None else bias

    def prepare(self, prefix: RoutePrefix, states: Array, vectors: Array | None) -> Array:
        assert prefix.identifiers is not None
        return np.array([self._row[token] for token in prefix.identifiers], dtype=np.int64)

    def scores(self, turn_states: Array, vectors: Array | None, prepared: Array) -> Array:
        scores: Array = turn_states @ self._rows[prepared].T + self._bias[prepared]
        return scores
