"""Llama's decoder in as few operations as torch allows, for decisions on few cores.

The same function as transformers' `LlamaModel` (rotary positions, grouped queries, SwiGLU), up to
rounding. On two cores a pass over one user turn is a thousand small operations beside its matrix
products; here projections that read the same states are one product, norms' weights are folded into
them, residuals are added by the products themselves, and of the last layer only the states that are
read are computed: its other positions give keys and values alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from serving.engine.kv_cache import Node
from serving.engine.linear import STEP, Linear
from serving.engine.mapped import empty
from serving.engine.tensors import Take

CHUNK = 256
"""Queries whose attention is computed at once: skips most of what is later than they."""


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Sizes of a plain Llama: no biases, SiLU."""

    config: Mapping[str, Any]
    hidden: int
    inner: int
    vocabulary: int
    layers: int
    heads: int
    key_heads: int
    width: int
    """Of one head."""
    eps: float

    @staticmethod
    def fits(config: Mapping[str, Any]) -> bool:
        """Whether a `config.json` is one of these."""
        return (
            config.get("model_type") == "llama"
            and not config.get("attention_bias")
            and not config.get("mlp_bias")
            and not config.get("quantization_config")
            and config.get("hidden_act", "silu") == "silu"
        )

    @classmethod
    def of(cls, config: Mapping[str, Any], layers: int | None = None) -> LlamaShape:
        """By its `config.json`, of the first `layers` alone; raises KeyError, TypeError, ValueError
        for what that lacks."""
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return cls(
            config=config,
            hidden=hidden,
            inner=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            layers=layers or int(config["num_hidden_layers"]),
            heads=heads,
            key_heads=int(config.get("num_key_value_heads") or heads),
            width=int(config.get("head_dim") or hidden // heads),
            eps=float(config["rms_norm_eps"]),
        )

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights, by name."""
        asked, kept = self.heads * self.width, self.key_heads * self.width
        layer = {
            "input_layernorm.weight": (self.hidden,),
            "self_attn.q_proj.weight": (asked, self.hidden),
            "self_attn.k_proj.weight": (kept, self.hidden),
            "self_attn.v_proj.weight": (kept, self.hidden),
            "self_attn.o_proj.weight": (self.hidden, asked),
            "post_attention_layernorm.weight": (self.hidden,),
            "mlp.gate_proj.weight": (self.inner, self.hidden),
            "mlp.up_proj.weight": (self.inner, self.hidden),
            "mlp.down_proj.weight": (self.hidden, self.inner),
        }
        return {
            "embed_tokens.weight": (self.vocabulary, self.hidden),
            "norm.weight": (self.hidden,),
            **{f"layers.{n}.{name}": layer[name] for n in range(self.layers) for name in layer},
        }

    @property
    def output(self) -> str:
        """Name of the output projection's weights, [vocabulary, hidden]."""
        tied = self.config.get("tie_word_embeddings")
        return "embed_tokens.weight" if tied else "lm_head.weight"

    def rotary(self) -> Callable[[Any], tuple[Any, Any]]:
        """What gives cosines and sines [tokens, width] of positions [tokens]."""
        rope = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        theta = rope.get("rope_theta") or self.config.get("rope_theta") or 10_000.0
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if kind != "default" or rope.get("partial_rotary_factor", 1) != 1:
            return self._other_rotary()
        steps = torch.arange(0, self.width, 2, dtype=torch.int64).float() / self.width
        frequencies = 1.0 / (theta**steps)

        def turn(positions: Any) -> tuple[Any, Any]:
            angles = (positions[:, None].float() * frequencies).repeat(1, 2)
            return angles.cos(), angles.sin()

        return turn

    def _other_rotary(self) -> Callable[[Any], tuple[Any, Any]]:
        # Imported here: transformers takes seconds, and plain positions do without it.
        from transformers.models.llama.configuration_llama import LlamaConfig
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        rotary = LlamaRotaryEmbedding(LlamaConfig(**self.config))
        like = torch.empty(0)

        def turn(positions: Any) -> tuple[Any, Any]:
            cos, sin = rotary(like, positions[None])
            return cos[0], sin[0]

        return turn


@dataclass(frozen=True, slots=True)
class _Layer:
    """Products of a layer, norms' weights folded in."""

    qkv: Linear
    output: Linear
    gate_up: Linear
    down: Linear

    @classmethod
    def of(cls, take: Take, number: int) -> _Layer:
        def weight(name: str) -> Any:
            return take(f"layers.{number}.{name}.weight")

        parts = [weight(f"self_attn.{name}_proj") for name in "qkv"]
        both = [weight(f"mlp.{name}_proj") for name in ("gate", "up")]
        return cls(
            Linear(torch.cat(parts) * weight("input_layernorm")),
            Linear(weight("self_attn.o_proj")),
            Linear(torch.cat(both) * weight("post_attention_layernorm")),
            Linear(weight("mlp.down_proj")),
        )


@dataclass(frozen=True, slots=True)
class _Queries:
    """Positions that ask in a layer: their rotation, and by chunk what each may look at."""

    cos: Any
    sin: Any
    chunks: list[tuple[slice, int, Any]]
    """Rows, keys that any of them sees, mask [rows, keys]."""

    @classmethod
    def of(cls, positions: Any, cos: Any, sin: Any) -> _Queries:
        chunks = []
        for start in range(0, len(positions), CHUNK):
            rows = slice(start, min(start + CHUNK, len(positions)))
            asked = positions[rows]
            first, end = int(asked.min()), int(asked.max()) + 1
            late = torch.arange(first, end) > asked[:, None]
            mask = torch.zeros(len(asked), end)
            mask[:, first:].masked_fill_(late, float("-inf"))
            chunks.append((rows, end, mask))
        return cls(cos, sin, chunks)

    def take(self, positions: Any, rows: Any) -> _Queries:
        """Those of some rows alone."""
        return _Queries.of(positions[rows], self.cos[rows], self.sin[rows])


class LlamaBackbone:
    """A `Backbone` in float32 on CPU, of weights named as in transformers' `LlamaModel`."""

    def __init__(self, shape: LlamaShape, take: Take) -> None:
        self._embeddings = take("embed_tokens.weight")
        self._norm = take("norm.weight")
        self._turn = shape.rotary()
        self._eps = shape.eps
        self._heads, self._key_heads = shape.heads, shape.key_heads
        self._width, self._inner = shape.width, shape.inner
        with torch.inference_mode():
            # One at a time, so that the weights are never in memory twice.
            self.layers = [_Layer.of(take, number) for number in range(shape.layers)]

    def __call__(
        self,
        path: Sequence[Node],
        tokens: Sequence[int],
        read: Sequence[int],
        cuts: Sequence[int],
        check: Callable[[], None],
    ) -> tuple[Any, list[tuple[Any, Any]]]:
        past = sum(node.segment.tokens for node in path)
        count = len(tokens)
        # The last token is repeated up to a number of rows that `Linear` need not fill up itself.
        tokens = [*tokens, *[tokens[-1]] * (-count % STEP)]
        positions = torch.arange(past, past + len(tokens)).clamp_(max=past + count - 1)
        states = self._embeddings[torch.tensor(tokens)]
        every = _Queries.of(positions, *self._rotation(positions))
        new_keys, new_values = self._pieces(cuts), self._pieces(cuts)
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
            seen = self._attended(
                asked,
                _kept(keys, new_keys, index, [node.segment.keys for node in path]),
                _kept(values, new_values, index, [node.segment.values for node in path]),
                queries,
            )
            states.add_(layer.output(seen))
            gate_up = layer.gate_up(self._normed(states))
            inner = F.silu(gate_up[:, : self._inner]).mul_(gate_up[:, self._inner :])
            states.add_(layer.down(inner))
        states = self._normed(states).mul_(self._norm)
        return states, list(zip(new_keys, new_values, strict=True))

    def _pieces(self, cuts: Sequence[int]) -> list[Any]:
        """Room for the keys, or the values, of pieces with these ends."""
        return [
            empty((len(self.layers), self._key_heads, end - start, self._width))
            for start, end in zip([0, *cuts], cuts, strict=False)
        ]

    def _rotation(self, positions: Any) -> tuple[Any, Any]:
        """Cosines and signed sines [tokens, 1, 2, width / 2], for halves that change places."""
        cos, sin = self._turn(positions)
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

        Torch computes it a block at a time, so that scores are never in memory; query heads of one
        key head look at the same memory.
        """
        grouped = asked.transpose(0, 1).view(self._key_heads, -1, len(asked), self._width)
        shape = (-1, grouped.shape[1], -1, -1)
        keys, values = keys[:, None].expand(shape), values[:, None].expand(shape)
        found = torch.empty(len(asked), self._heads * self._width)
        for rows, end, mask in queries.chunks:
            seen = F.scaled_dot_product_attention(
                grouped[:, :, rows], keys[:, :, :end], values[:, :, :end], attn_mask=mask
            )
            heads = seen.view(self._heads, -1, self._width)
            found[rows] = heads.transpose(0, 1).reshape(len(mask), -1)
        return found


def _kept(new: Any, pieces: Sequence[Any], layer: int, past: Sequence[Any]) -> Any:
    """All of a layer's keys or values [heads, n, width]: the past ones, and `new` [rows, heads,
    width], which is written into its pieces as far as they reach."""
    parts = [each[layer] for each in past]
    start = 0
    for piece in pieces:
        kept = piece[layer]
        end = start + kept.shape[1]
        parts.append(kept.copy_(new[start:end].transpose(0, 1)))
        start = end
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]
