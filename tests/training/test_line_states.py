"""States of lines: training's and serving's are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from routing.pointer import LineState
from routing.pointer import line_states as served
from training.readout import Batch, Pointer
from training.readout import line_states as trained


@pytest.mark.parametrize("kind", ["end", "mean"])
def test_numpy_and_torch_agree(kind: LineState) -> None:
    states = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(1))
    starts = [[2, 7, 8], [0, 4, 20]]
    ends = [[6, 7, 19], [3, 19, 29]]
    batch = Batch(
        decision_rows=torch.tensor([0, 1]),
        line_starts=torch.tensor(starts),
        line_ends=torch.tensor(ends),
    )
    ours = trained(states, batch, kind)
    for row in range(2):
        theirs = served(states[row].numpy(), starts[row], ends[row], kind)
        assert np.allclose(ours[row].numpy(), theirs, atol=1e-5)
    if kind == "mean":
        assert torch.allclose(ours[0, 0], states[0, 2:7].mean(0), atol=1e-5)


def test_a_standardised_pointer_sees_what_is_particular() -> None:
    generator = torch.Generator().manual_seed(2)
    common = 50 * torch.randn(1, 64, generator=generator)
    own = torch.randn(40, 64, generator=generator)
    turns, lines = common + own, common + own + 0.3 * torch.randn(40, 64, generator=generator)

    def right(pointer: Pointer) -> float:
        scores, _ = pointer(turns, lines[None].expand(40, -1, -1))
        return float((scores.argmax(-1) == torch.arange(40)).float().mean())

    torch.manual_seed(3)
    plain, standardised = Pointer(64, 32), Pointer(64, 32)
    standardised.standardise(turns, lines)
    scores = plain(turns, lines[None].expand(40, -1, -1))[0].detach()
    assert float(scores.max() - scores.min()) < 0.1  # all alike: nothing to learn from
    assert right(standardised) > 0.9
