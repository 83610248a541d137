"""Products by weights laid out beforehand against torch's own, with and without oneDNN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from serving.engine import linear
from serving.engine.linear import ROWS, STEP, Linear


def drawn(*shape: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("laid_out", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [1, STEP, STEP + 1, 70, ROWS, ROWS + 1, 2 * ROWS + 5])
def test_product_is_torchs(
    rows: int, biased: bool, laid_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not laid_out:
        monkeypatch.setattr(linear, "_packed", lambda weight: None)
    weight, bias, states = drawn(48, 33), drawn(48) if biased else None, drawn(rows, 33)
    with torch.inference_mode():
        found = Linear(weight, bias)(states)
    assert found.shape == (rows, 48)
    torch.testing.assert_close(found, F.linear(states, weight, bias))


def test_weights_that_are_a_view_of_others() -> None:
    weight, states = drawn(40, 64).t()[:24], drawn(9, 40)
    torch.testing.assert_close(Linear(weight)(states), F.linear(states, weight))


def test_torch_without_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        pass

    monkeypatch.setattr(torch.ops, "mkldnn", Nothing())
    weight, states = drawn(16, 8), drawn(3, 8)
    torch.testing.assert_close(Linear(weight)(states), F.linear(states, weight))
