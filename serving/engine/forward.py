"""One pass of the model over the tokens that no cached segment covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, DynamicLayer

from serving.engine.kv_cache import Node


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


class Forward:
    """Keys, values and states of new tokens after a cached path.

    `check` is called before each layer; what it raises abandons the pass.
    """

    def __init__(self, backbone: Any, check: Callable[[], None] = lambda: None) -> None:
        self._backbone = backbone
        self._layers = int(backbone.config.num_hidden_layers)
        self._check = check

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def __call__(
        self, path: Sequence[Node], tokens: Sequence[int], read: Sequence[int], cuts: Sequence[int]
    ) -> tuple[NDArray[Any], list[tuple[Any, Any]]]:
        """States [len(read), hidden] and keys and values of each piece of `tokens`.

        `read` are positions within `tokens`, `cuts` the pieces' ends within them. The keys and
        values are [layers, heads, tokens, head_dim] and own their memory.
        """
        layers = [_PathLayer(path, index, self._check) for index in range(self._layers)]
        output = self._backbone(
            input_ids=torch.tensor([list(tokens)]),
            past_key_values=Cache(layers=list(layers)),
            use_cache=True,
        )
        states = output.last_hidden_state[0, list(read)].float().numpy()
        pieces: list[tuple[Any, Any]] = []
        start = 0
        for end in cuts:
            part = slice(start, end)
            keys = torch.stack([layer.keys[0, :, part] for layer in layers])
            values = torch.stack([layer.values[0, :, part] for layer in layers])
            pieces.append((keys, values))
            start = end
        return states, pieces
