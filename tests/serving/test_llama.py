"""Our own pass of Llama against transformers': same states, same keys and values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, Qwen3Config

from serving.engine.any_model import TransformersBackbone
from serving.engine.forward import Forward
from serving.engine.kv_cache import Node, Segment
from serving.engine.llama import CHUNK, LlamaBackbone, LlamaShape

SHAPES: list[dict[str, Any]] = [
    {"num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 3},
    {"num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 1},
    {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2, "head_dim": 32},
    {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 256,
        },
    },
]


def llama(**shape: Any) -> Any:
    torch.manual_seed(3)
    width = 16 * shape["num_attention_heads"]
    config = LlamaConfig(
        vocab_size=101, hidden_size=width, intermediate_size=80, attn_implementation="sdpa", **shape
    )
    model = LlamaModel(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.copy_(torch.rand(weight.shape) + 0.5)
    return model


def backbone_of(model: Any) -> LlamaBackbone:
    return LlamaBackbone(LlamaShape.of(model.config.to_dict()), model.state_dict().__getitem__)


def ids(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 101, (count,), generator=generator).tolist()


def path_of(forward: Forward, segments: Sequence[Sequence[int]]) -> list[Node]:
    path: list[Node] = []
    for tokens in segments:
        _, [(keys, values)] = forward(path, tokens, [0], [len(tokens)])
        path.append(Node(Segment(tuple(tokens), keys, values, None), path[-1] if path else None))
    return path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("past", [[], [7], [40, 1, 9]])
@pytest.mark.parametrize("new", [1, 13, CHUNK, 2 * CHUNK + 5])
def test_same_states_keys_and_values(shape: dict[str, Any], past: list[int], new: int) -> None:
    model = llama(**shape)
    theirs = Forward(TransformersBackbone(model))
    ours = Forward(backbone_of(model))
    segments = [ids(count, seed) for seed, count in enumerate(past)]
    tokens = ids(new, 99)
    read = sorted({0, new // 3, new - 1})
    cuts = sorted({max(new // 2, 1), new})
    expected, their_pieces = theirs(path_of(theirs, segments), tokens, read, cuts)
    found, our_pieces = ours(path_of(ours, segments), tokens, read, cuts)
    assert found.shape == (len(read), 16 * shape["num_attention_heads"])
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    for our, their in zip(our_pieces, their_pieces, strict=True):
        for ours_, theirs_ in zip(our, their, strict=True):
            assert ours_.is_contiguous()
            torch.testing.assert_close(ours_, theirs_, rtol=1e-4, atol=1e-5)


def test_states_come_in_the_order_asked_for_and_more_than_once() -> None:
    forward = Forward(backbone_of(llama(**SHAPES[0])))
    tokens = ids(2 * CHUNK, 1)
    every, _ = forward([], tokens, range(len(tokens)), [len(tokens)])
    read = [len(tokens) - 1, 0, 300, 300, 2]
    some, _ = forward([], tokens, read, [len(tokens)])
    torch.testing.assert_close(torch.tensor(some), torch.tensor(every[read]), rtol=1e-4, atol=1e-5)


def test_what_comes_later_changes_nothing_before() -> None:
    forward = Forward(backbone_of(llama(**SHAPES[0])))
    tokens = ids(CHUNK + 20, 1)
    other = [*tokens[:-10], *ids(10, 2)]
    read = range(len(tokens) - 10)
    first, _ = forward([], tokens, read, [len(tokens)])
    second, _ = forward([], other, read, [len(tokens)])
    torch.testing.assert_close(torch.tensor(first), torch.tensor(second), rtol=1e-5, atol=1e-6)


def test_a_pass_is_abandoned_between_layers() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise InterruptedError

    forward = Forward(backbone_of(llama(**SHAPES[0])), check)
    with pytest.raises(InterruptedError):
        forward([], ids(5, 1), [4], [5])
    assert calls == 2


def test_what_it_fits() -> None:
    small: dict[str, Any] = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 40}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 1}
    assert LlamaShape.fits(LlamaConfig(**small, **heads).to_dict())
    assert not LlamaShape.fits(Qwen3Config(**small, **heads).to_dict())
    for odd in ({"attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"}):
        assert not LlamaShape.fits(LlamaConfig(**small, **heads, **odd).to_dict())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_weights_it_asks_for_are_the_models(shape: dict[str, Any]) -> None:
    model = llama(**shape)
    theirs = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert LlamaShape.of(model.config.to_dict()).tensors() == theirs


def test_a_configuration_of_before_rope_parameters() -> None:
    """As transformers 4 wrote it."""
    old = {**llama(**SHAPES[0]).config.to_dict(), "rope_theta": 5000.0}
    del old["rope_parameters"]
    cos, _ = LlamaShape.of(old).rotary()(torch.tensor([1]))
    assert cos[0, 1] == pytest.approx(math.cos(5000.0 ** (-2 / 16)))
