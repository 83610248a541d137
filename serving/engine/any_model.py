"""Models that we have no pass of our own for, run by transformers' code.

Apart from the rest because importing transformers takes seconds, which plain checkpoints spare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from serving.engine.kv_cache import Node
from serving.engine.mapped import empty


class TransformersBackbone:
    """Any decoder of transformers, dense or mixture of experts, by its own code."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def layers(self) -> Sequence[Any]:
        found: Sequence[Any] = self._model.layers
        return found

    def __call__(
        self,
        path: Sequence[Node],
        tokens: Sequence[int],
        read: Sequence[int],
        cuts: Sequence[int],
        check: Callable[[], None],
    ) -> tuple[Any, list[tuple[Any, Any]]]:
        layers = [_PathLayer(path, index, check) for index in range(len(self.layers))]
        output = self._model(
            input_ids=torch.tensor([list(tokens)]),
            past_key_values=Cache(layers=list(layers)),
            use_cache=True,
        )
        states = output.last_hidden_state[0, list(read)]
        keys, values = [each.keys[0] for each in layers], [each.values[0] for each in layers]
        pieces = [
            (_piece(keys, start, end), _piece(values, start, end))
            for start, end in zip([0, *cuts], cuts, strict=False)
        ]
        return states, pieces


def _piece(layers: Sequence[Any], start: int, end: int) -> Any:
    """[layers, heads, end - start, head_dim] of layers' [heads, tokens, head_dim]."""
    parts = [each[:, start:end] for each in layers]
    return torch.stack(parts, out=empty((len(parts), *parts[0].shape), parts[0].dtype))


class _PathLayer(DynamicLayer):
    """One layer's keys and values along a path, joined with the new ones when the layer runs.

    Joining late copies the past once instead of twice, and frees each layer's copy after it.
    """

    def __init__(self, path: Sequence[Node], layer: int, check: Callable[[], None]) -> None:
        super().__init__()
        self._path = path
        self._layer = layer
        self._check = check
        self._past = sum(node.segment.tokens for node in path)
        self.is_initialized = True

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
        self._check()
        self.keys, self.values = key_states, value_states
        if not self._path:
            return key_states, value_states
        keys = [node.segment.keys[self._layer].unsqueeze(0) for node in self._path]
        values = [node.segment.values[self._layer].unsqueeze(0) for node in self._path]
        return torch.cat([*keys, key_states], dim=-2), torch.cat([*values, value_states], dim=-2)

    def get_seq_length(self) -> int:
        return self._past


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
