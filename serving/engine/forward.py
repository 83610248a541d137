"""One pass of the model over the tokens that no cached segment covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache, DynamicLayer

from serving.engine.kv_cache import Node
from serving.engine.llama import LlamaBackbone
from serving.engine.mapped import owned


class Backbone(Protocol):
    """A language model without its output projection, on CPU in float32."""

    @property
    def layers(self) -> Sequence[Any]: ...

    def __call__(
        self,
        path: Sequence[Node],
        tokens: Sequence[int],
        read: Sequence[int],
        check: Callable[[], None],
    ) -> tuple[Any, Any, Any]:
        """Final states [len(read), hidden], and the keys and values of `tokens`.

        Keys and values are [layers, heads, tokens, head_dim]; `check` is called before each layer.
        """
        ...


def backbone_of(model: Any) -> Backbone:
    """The fastest that the model can be run by; the model is not to be used after."""
    return LlamaBackbone(model) if LlamaBackbone.fits(model) else TransformersBackbone(model)


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
        check: Callable[[], None],
    ) -> tuple[Any, Any, Any]:
        layers = [_PathLayer(path, index, check) for index in range(len(self.layers))]
        output = self._model(
            input_ids=torch.tensor([list(tokens)]),
            past_key_values=Cache(layers=list(layers)),
            use_cache=True,
        )
        states = output.last_hidden_state[0, list(read)]
        keys = torch.stack([each.keys[0] for each in layers])
        return states, keys, torch.stack([each.values[0] for each in layers])


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

    def __init__(self, backbone: Backbone, check: Callable[[], None] = lambda: None) -> None:
        self._backbone = backbone
        self._check = check

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def __call__(
        self, path: Sequence[Node], tokens: Sequence[int], read: Sequence[int], cuts: Sequence[int]
    ) -> tuple[NDArray[Any], list[tuple[Any, Any]]]:
        """States [len(read), hidden] and keys and values of each piece of `tokens`.

        `read` are positions within `tokens`, `cuts` the pieces' ends within them. The keys and
        values are [layers, heads, tokens, head_dim] and own their memory.
        """
        states, keys, values = self._backbone(path, tokens, read, self._check)
        starts = [0, *cuts]
        return states.float().numpy(), [
            (owned(keys[:, :, start:end]), owned(values[:, :, start:end]))
            for start, end in zip(starts, cuts, strict=False)
        ]
