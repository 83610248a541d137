"""Our own pass of BERT against transformers': the same states, whatever texts come together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from serving.engine.bert import BertStates
from serving.engine.encoder import PaddedStates


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


def texts(*sizes: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(sizes))
    return [torch.randint(1, 97, (size,), generator=generator).tolist() for size in sizes]


@pytest.mark.parametrize("sizes", [(1,), (8,), (70,), (3, 3), (1, 9, 40), (5, 200, 2, 64)])
def test_states_are_transformers(sizes: tuple[int, ...]) -> None:
    model, asked = bert(), texts(*sizes)
    found = BertStates(model)(asked)
    assert [len(states) for states in found] == list(sizes)
    for states, expected in zip(found, PaddedStates(model)(asked), strict=True):
        torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)


def test_a_text_does_not_depend_on_its_neighbours() -> None:
    states = BertStates(bert())
    first, second = texts(12, 30)
    alone = states([first])[0]
    torch.testing.assert_close(states([second, first])[1], alone, rtol=1e-4, atol=1e-5)


def test_what_it_fits() -> None:
    assert BertStates.fits(bert())
    assert not BertStates.fits(bert(hidden_act="relu"))
    assert not BertStates.fits(bert(is_decoder=True))
    assert not BertStates.fits(bert().to(torch.bfloat16))
    roberta = RobertaConfig(
        vocab_size=97, hidden_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    assert not BertStates.fits(RobertaModel(roberta))
