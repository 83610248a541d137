"""Our own pass of BERT against transformers': the same states, whatever texts come together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig

from serving.engine.any_model import PaddedStates
from serving.engine.bert import BertShape, BertStates


def bert(**changes: Any) -> Any:
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=97,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=80,
        **changes,
    )
    model = BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "LayerNorm" in name or "bias" in name:
            weight.copy_(torch.rand(weight.shape) + 0.5)
    return model


def ours(model: Any) -> BertStates:
    return BertStates(BertShape.of(model.config.to_dict()), model.state_dict().__getitem__)


def texts(*sizes: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(sizes))
    return [torch.randint(1, 97, (size,), generator=generator).tolist() for size in sizes]


@pytest.mark.parametrize("sizes", [(1,), (8,), (70,), (3, 3), (1, 9, 40), (5, 200, 2, 64)])
def test_states_are_transformers(sizes: tuple[int, ...]) -> None:
    model, asked = bert(), texts(*sizes)
    found = ours(model)(asked)
    assert [len(states) for states in found] == list(sizes)
    for states, expected in zip(found, PaddedStates(model)(asked), strict=True):
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)


def test_a_text_does_not_depend_on_its_neighbours() -> None:
    states = ours(bert())
    first, second = texts(12, 30)
    alone = states([first])[0]
    torch.testing.assert_close(states([second, first])[1], alone, rtol=1e-4, atol=1e-5)


def test_what_it_fits() -> None:
    assert BertShape.fits(bert().config.to_dict())
    for odd in ({"hidden_act": "relu"}, {"is_decoder": True}):
        assert not BertShape.fits(bert(**odd).config.to_dict())
    assert not BertShape.fits(RobertaConfig().to_dict())


def test_the_weights_it_asks_for_are_the_models() -> None:
    model = bert()
    theirs = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert BertShape.of(model.config.to_dict()).tensors() == theirs
