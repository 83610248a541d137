"""BERT's encoder in few operations, for sentence vectors of short texts on few cores.

The same function as transformers' `BertModel` without its pooling layer (Devlin et al. 2019), up to
rounding. Texts are rows one after another, so none is filled up to the longest; queries, keys and
values are one product, and products take weights laid out for the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from transformers.models.bert.modeling_bert import BertModel

from serving.engine.linear import STEP, Linear


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Any
    bias: Any
    eps: float

    @classmethod
    def of(cls, norm: Any) -> _Norm:
        return cls(norm.weight, norm.bias, norm.eps)

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
    def of(cls, layer: Any) -> _Layer:
        parts = [getattr(layer.attention.self, name) for name in ("query", "key", "value")]
        return cls(
            Linear(torch.cat([each.weight for each in parts]), torch.cat([x.bias for x in parts])),
            _linear(layer.attention.output.dense),
            _Norm.of(layer.attention.output.LayerNorm),
            _linear(layer.intermediate.dense),
            _linear(layer.output.dense),
            _Norm.of(layer.output.LayerNorm),
        )


class BertStates:
    """Final states of texts, made of a `BertModel`, which it leaves as it was.

    Float32 on CPU. `fits` says which models it can be made of.
    """

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model is a plain BERT encoder: GELU, float32."""
        return (
            type(model) is BertModel
            and not model.config.is_decoder
            and model.config.hidden_act == "gelu"
            and model.dtype == torch.float32
        )

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def __init__(self, model: Any) -> None:
        embeddings = model.embeddings
        self._words = embeddings.word_embeddings.weight
        # Every token is of the first segment.
        self._places = (
            embeddings.position_embeddings.weight + embeddings.token_type_embeddings.weight[0]
        )
        self._norm = _Norm.of(embeddings.LayerNorm)
        self._heads = int(model.config.num_attention_heads)
        self._layers = [_Layer.of(layer) for layer in model.encoder.layer]

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


def _linear(module: Any) -> Linear:
    return Linear(module.weight, module.bias)
