"""BERT's encoder in few operations, for sentence vectors of short texts on few cores.

The same function as transformers' `BertModel` without its pooling layer (Devlin et al. 2019), up to
rounding. Texts are rows one after another, so none is filled up to the longest; queries, keys and
values are one product, and products take weights laid out for the processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F

from serving.engine.linear import STEP, Linear
from serving.engine.tensors import Take


@dataclass(frozen=True, slots=True)
class BertShape:
    """Sizes of a plain BERT encoder: GELU, absolute places."""

    hidden: int
    inner: int
    vocabulary: int
    layers: int
    heads: int
    places: int
    kinds: int
    eps: float

    @staticmethod
    def fits(config: Mapping[str, Any]) -> bool:
        """Whether a `config.json` is one of these."""
        return (
            config.get("model_type") == "bert"
            and not config.get("is_decoder")
            and not config.get("quantization_config")
            and config.get("hidden_act", "gelu") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
        )

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> BertShape:
        """By its `config.json`; raises KeyError, TypeError, ValueError for what that lacks."""
        return cls(
            hidden=int(config["hidden_size"]),
            inner=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            places=int(config["max_position_embeddings"]),
            kinds=int(config.get("type_vocab_size", 2)),
            eps=float(config.get("layer_norm_eps", 1e-12)),
        )

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all weights, by name."""
        hidden, inner = self.hidden, self.inner
        linear = {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (inner, hidden),
            "output.dense": (hidden, inner),
        }
        layer: dict[str, tuple[int, ...]] = {f"{k}.weight": v for k, v in linear.items()}
        layer |= {f"{name}.bias": shape[:1] for name, shape in linear.items()}
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            layer |= {f"{norm}.weight": (hidden,), f"{norm}.bias": (hidden,)}
        return {
            "embeddings.word_embeddings.weight": (self.vocabulary, hidden),
            "embeddings.position_embeddings.weight": (self.places, hidden),
            "embeddings.token_type_embeddings.weight": (self.kinds, hidden),
            "embeddings.LayerNorm.weight": (hidden,),
            "embeddings.LayerNorm.bias": (hidden,),
            **{
                f"encoder.layer.{n}.{name}": layer[name]
                for n in range(self.layers)
                for name in layer
            },
        }


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Any
    bias: Any
    eps: float

    @classmethod
    def of(cls, take: Take, name: str, eps: float) -> _Norm:
        return cls(take(f"{name}.LayerNorm.weight"), take(f"{name}.LayerNorm.bias"), eps)

    def __call__(self, states: Any) -> Any:
        return F.layer_norm(states, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Linear
    output: Linear
    output_norm: _Norm
    up: Linear
    down: Linear
    down_norm: _Norm

    @classmethod
    def of(cls, take: Take, number: int, eps: float) -> _Layer:
        name = f"encoder.layer.{number}"

        def linear(*parts: str) -> Linear:
            weights, biases = (
                torch.cat([take(f"{name}.{part}.{kind}") for part in parts])
                for kind in ("weight", "bias")
            )
            return Linear(weights, biases)

        return cls(
            linear(*(f"attention.self.{part}" for part in ("query", "key", "value"))),
            linear("attention.output.dense"),
            _Norm.of(take, f"{name}.attention.output", eps),
            linear("intermediate.dense"),
            linear("output.dense"),
            _Norm.of(take, f"{name}.output", eps),
        )


class BertStates:
    """Final states of texts, in float32 on CPU; weights named as in transformers' `BertModel`."""

    def __init__(self, shape: BertShape, take: Take) -> None:
        self._words = take("embeddings.word_embeddings.weight")
        # Every token is of the first segment.
        first = take("embeddings.token_type_embeddings.weight")[0]
        self._places = take("embeddings.position_embeddings.weight") + first
        self._norm = _Norm.of(take, "embeddings", shape.eps)
        self._heads = shape.heads
        with torch.inference_mode():
            self._layers = [_Layer.of(take, number, shape.eps) for number in range(shape.layers)]

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def __call__(self, texts: Sequence[Sequence[int]]) -> list[Any]:
        """States [tokens, hidden] of each text, from its token ids."""
        sizes = [len(text) for text in texts]
        ends = list(accumulate(sizes))
        spans = list(zip([0, *ends], ends, strict=False))
        spare = -ends[-1] % STEP  # rows that `Linear` would otherwise fill up at every product
        ids = torch.tensor([token for text in texts for token in text] + [0] * spare)
        places = torch.cat([torch.arange(size) for size in (*sizes, spare)])
        states = self._norm(self._words[ids] + self._places[places])
        mixed = torch.zeros_like(states)
        for layer in self._layers:
            qkv = layer.qkv(states).view(len(states), 3, self._heads, -1)
            for start, end in spans:
                queries, keys, values = qkv[start:end].permute(1, 2, 0, 3)[:, None]
                seen = F.scaled_dot_product_attention(queries, keys, values)
                mixed[start:end] = seen[0].transpose(0, 1).flatten(1)
            states = layer.output_norm(layer.output(mixed).add_(states))
            inner = layer.down(F.gelu(layer.up(states)))
            states = layer.down_norm(inner.add_(states))
        return list(states[: ends[-1]].split(sizes))
