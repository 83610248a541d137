"""One pass of the model over the tokens that no cached segment covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from serving.engine.kv_cache import Node


class Backbone(Protocol):
    """A language model without its output projection, on CPU in float32."""

    @property
    def layers(self) -> Sequence[Any]: ...

    def __call__(
        self,
        path: Sequence[Node],
        tokens: Sequence[int],
        read: Sequence[int],
        cuts: Sequence[int],
        check: Callable[[], None],
    ) -> tuple[Any, list[tuple[Any, Any]]]:
        """Final states [len(read), hidden], and keys and values of each piece of `tokens`.

        `read` are positions within `tokens`, `cuts` the pieces' ends within them. Keys and values
        are [layers, heads, tokens, head_dim] and own their memory; `check` is called before each
        layer.
        """
        ...


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
        """As the backbone's, in float32."""
        states, pieces = self._backbone(path, tokens, read, cuts, self._check)
        return states.float().numpy(), pieces
