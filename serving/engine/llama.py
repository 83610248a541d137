"""Llama's decoder in as few operations as torch allows, for decisions on few cores.

The same function as transformers' `LlamaModel` (rotary positions, grouped queries, SwiGLU), up to
rounding. On two cores a pass over one user turn is a thousand small operations beside its matrix
products; here projections that read the same states are one product, norms' weights are folded into
them, residuals are added by the products themselves, and of the last layer only the states that are
read are computed: its other positions give keys and values alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers.models.llama.modeling_llama import LlamaModel

from serving.engine.kv_cache import Node
from serving.engine.linear import STEP, Linear

CHUNK = 256
"""Queries whose attention is computed at once: bounds the scores kept, and skips most of what is
later than they."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """Products of a layer, norms' weights folded in."""

    qkv: Linear
    output: Linear
    gate_up: Linear
    down: Linear

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        parts = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        return cls(
            Linear(torch.cat(parts) * layer.input_layernorm.weight),
            Linear(attention.o_proj.weight),
            Linear(
                torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
                * layer.post_attention_layernorm.weight
            ),
            Linear(mlp.down_proj.weight),
        )


@dataclass(frozen=True, slots=True)
class _Queries:
    """Positions that ask in a layer: their rotation, and by chunk what each may look at."""

    cos: Any
    sin: Any
    chunks: list[tuple[slice, int, int, Any]]
    """Rows, first key that not all of them see, keys that any sees, mask [rows, keys between]."""

    @classmethod
    def of(cls, positions: Any, cos: Any, sin: Any) -> _Queries:
        chunks = []
        for start in range(0, len(positions), CHUNK):
            rows = slice(start, min(start + CHUNK, len(positions)))
            asked = positions[rows]
            first, end = int(asked.min()), int(asked.max()) + 1
            late = torch.arange(first, end) > asked[:, None]
            mask = torch.zeros(late.shape).masked_fill_(late, float("-inf"))
            chunks.append((rows, first, end, mask))
        return cls(cos, sin, chunks)

    def take(self, positions: Any, rows: Any) -> _Queries:
        """Those of some rows alone."""
        return _Queries.of(positions[rows], self.cos[rows], self.sin[rows])


class LlamaBackbone:
    """A `Backbone` made of a `LlamaModel`, whose layers it takes: the model is of no use after.

    Float32 on CPU. `fits` says which models it can be made of.
    """

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model is a plain Llama: no biases, SiLU."""
        return (
            type(model) is LlamaModel
            and not model.config.attention_bias
            and not model.config.mlp_bias
            and model.config.hidden_act == "silu"
        )

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def __init__(self, model: Any) -> None:
        config = model.config
        self._embeddings = model.embed_tokens.weight
        self._rotary = model.rotary_emb
        self._norm = model.norm.weight
        self._eps = float(config.rms_norm_eps)
        self._heads = int(config.num_attention_heads)
        self._key_heads = int(config.num_key_value_heads)
        self._width = int(model.layers[0].self_attn.head_dim)
        self._inner = int(config.intermediate_size)
        self.layers: list[_Layer] = []
        while len(model.layers):
            # One at a time, so that the weights are never in memory twice.
            self.layers.append(_Layer.of(model.layers[0]))
            del model.layers[0]

    def __call__(
        self,
        path: Sequence[Node],
        tokens: Sequence[int],
        read: Sequence[int],
        check: Callable[[], None],
    ) -> tuple[Any, Any, Any]:
        past = sum(node.segment.tokens for node in path)
        count = len(tokens)
        # The last token is repeated up to a number of rows that `Linear` need not fill up itself.
        tokens = [*tokens, *[tokens[-1]] * (-count % STEP)]
        positions = torch.arange(past, past + len(tokens)).clamp_(max=past + count - 1)
        states = self._embeddings[torch.tensor(tokens)]
        every = _Queries.of(positions, *self._rotation(states, positions))
        shape = (len(self.layers), self._key_heads, count, self._width)
        all_keys, all_values = torch.empty(shape), torch.empty(shape)
        for index, layer in enumerate(self.layers):
            check()
            mixed = layer.qkv(self._normed(states)).view(len(tokens), -1, self._width)
            turned = self._turned(mixed[:, : self._heads + self._key_heads], every)
            asked, keys = turned[:, : self._heads], turned[:, self._heads :]
            values = mixed[:, self._heads + self._key_heads :]
            queries = every
            if index == len(self.layers) - 1:
                rows = torch.tensor(list(read), dtype=torch.long)
                queries, states, asked = every.take(positions, rows), states[rows], asked[rows]
            keys = all_keys[index].copy_(keys[:count].transpose(0, 1))
            values = all_values[index].copy_(values[:count].transpose(0, 1))
            seen = self._attended(
                asked,
                torch.cat([*(node.segment.keys[index] for node in path), keys], 1),
                torch.cat([*(node.segment.values[index] for node in path), values], 1),
                queries,
            )
            states.add_(layer.output(seen))
            gate_up = layer.gate_up(self._normed(states))
            inner = F.silu(gate_up[:, : self._inner]).mul_(gate_up[:, self._inner :])
            states.add_(layer.down(inner))
        return self._normed(states).mul_(self._norm), all_keys, all_values

    def _rotation(self, states: Any, positions: Any) -> tuple[Any, Any]:
        """Cosines and signed sines [tokens, 1, 2, width / 2], for halves that change places."""
        cos, sin = self._rotary(states, positions[None])
        shape = (len(positions), 1, 2, self._width // 2)
        sign = torch.tensor([-1.0, 1.0])[:, None]
        return cos.view(shape), sin.view(shape) * sign

    def _turned(self, heads: Any, queries: _Queries) -> Any:
        """[tokens, heads, width] by the rotation of their positions (RoFormer, Su et al. 2021)."""
        halves = heads.reshape(*heads.shape[:2], 2, -1)
        turned = torch.addcmul(halves * queries.cos, halves.flip(2), queries.sin)
        return turned.view(heads.shape)

    def _normed(self, states: Any) -> Any:
        """Over the root of the mean square; its weight is in what comes next."""
        return states * states.square().mean(-1, keepdim=True).add_(self._eps).rsqrt_()

    def _attended(self, asked: Any, keys: Any, values: Any, queries: _Queries) -> Any:
        """[rows, heads * width] of queries [rows, heads, width], keys and values [heads, n, width].

        Query heads of one key head are rows of one product, so keys are never repeated.
        """
        scale = self._width**-0.5
        grouped = asked.transpose(0, 1).reshape(self._key_heads, -1, len(asked), self._width)
        groups = grouped.shape[1]
        found = torch.empty(len(asked), self._heads * self._width)
        for rows, first, end, mask in queries.chunks:
            count = rows.stop - rows.start
            part = grouped[:, :, rows].reshape(self._key_heads, groups * count, self._width)
            scores = torch.bmm(part, keys[:, :end].transpose(1, 2)).mul_(scale)
            scores.view(self._key_heads, groups, count, end)[..., first:].add_(mask)
            mixed = torch.bmm(scores.softmax(-1), values[:, :end])
            heads = mixed.view(self._heads, count, self._width)
            found[rows] = heads.transpose(0, 1).reshape(count, -1)
        return found
