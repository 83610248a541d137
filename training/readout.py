"""Read-outs in torch: from hidden states to scores over the lines of a prefix.

The numpy twins that engines use are in `routing.pointer`; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.pointer import LineState
from training.examples import Example


class Pointer(nn.Module):
    """Scaled cosine of two projections; see `routing.pointer`.

    Both start as the same matrix with orthonormal rows, so that at first a score is the plain
    likeness of two states; `standardise` makes it the likeness of what is particular to them.
    """

    def __init__(self, hidden: int, dim: int, lines: LineState = "end") -> None:
        super().__init__()
        self.lines: LineState = lines
        self.query = nn.Linear(hidden, dim)
        self.key = nn.Linear(hidden, dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        nn.init.orthogonal_(self.query.weight)
        self.key.weight.data.copy_(self.query.weight.data)
        nn.init.zeros_(self.query.bias)
        nn.init.zeros_(self.key.bias)

    @torch.no_grad()
    def standardise(self, turn_states: Tensor, line_states: Tensor) -> None:
        """Start from states [N, H] of a sample: each dimension centred, and of equal spread.

        A language model's states share a large common part, and few dimensions outweigh the rest
        (arXiv 2402.17762), so their plain likeness tells little.
        """
        for projection, states in ((self.query, turn_states), (self.key, line_states)):
            projection.weight /= states.std(0) + 1e-3
            projection.bias.copy_(-projection.weight @ states.mean(0))

    def forward(self, turn_states: Tensor, line_states: Tensor) -> Tensor:
        """Scores [D, L] of turn states [D, H] against their own line states [D, L, H]."""
        queries = F.normalize(self.query(turn_states), dim=-1)
        keys = F.normalize(self.key(line_states), dim=-1)
        return self.log_scale.exp() * torch.einsum("dh,dlh->dl", queries, keys)


class Batch(dict[str, Tensor]):
    """Tensors of B examples with D decisions in all and at most L lines each.

    input_ids, attention_mask [B, T]; line_starts, line_ends, line_identifiers, line_mask [B, L];
    decision_rows, decision_positions [D]; targets [D, L].
    """


def collate(examples: Sequence[Example], pad: int) -> Batch:
    """Pad on the right; `line_mask` tells lines from padding."""
    longest = max(example.length for example in examples)
    lines = max(len(example.line_ends) for example in examples)

    def padded(values: Sequence[int], size: int, filler: int) -> list[int]:
        return [*values, *[filler] * (size - len(values))]

    targets = [
        [*target, *[0.0] * (lines - len(target))] for ex in examples for target in ex.targets
    ]
    return Batch(
        input_ids=torch.tensor([padded(ex.input_ids, longest, pad) for ex in examples]),
        attention_mask=torch.tensor([padded([1] * ex.length, longest, 0) for ex in examples]),
        line_starts=torch.tensor([padded(ex.line_starts, lines, 0) for ex in examples]),
        line_ends=torch.tensor([padded(ex.line_ends, lines, 0) for ex in examples]),
        line_identifiers=torch.tensor([padded(ex.identifiers, lines, 0) for ex in examples]),
        line_mask=torch.tensor(
            [padded([1] * len(ex.line_ends), lines, 0) for ex in examples], dtype=torch.bool
        ),
        decision_rows=torch.tensor([row for row, ex in enumerate(examples) for _ in ex.decisions]),
        decision_positions=torch.tensor([p for ex in examples for p in ex.decisions]),
        targets=torch.tensor(targets),
    )


def line_states(states: Tensor, starts: Tensor, ends: Tensor, kind: LineState) -> Tensor:
    """States [B, L, H] of lines, from states [B, T, H]; see `routing.pointer.line_states`."""
    everyone = torch.arange(states.shape[0], device=states.device)[:, None]
    if kind == "end":
        return states[everyone, ends]
    # Sums up to each position make the mean over any span two look-ups.
    sums = F.pad(states.cumsum(1), (0, 0, 1, 0))
    return (sums[everyone, ends + 1] - sums[everyone, starts]) / (ends + 1 - starts)[..., None]


def read_out(model: nn.Module, states: Tensor, batch: Batch) -> Tensor:
    """Scores [D, L] from final states [B, T, H]; lines that are padding get -inf.

    Uses the model's `pointer` if it has one, else the output embeddings of the identifiers.
    """
    rows = batch["decision_rows"]
    turn_states = states[rows, batch["decision_positions"]]
    pointer = getattr(model, "pointer", None)
    if pointer is not None:
        lines = line_states(states, batch["line_starts"], batch["line_ends"], pointer.lines)
        scores = pointer(turn_states, lines[rows])
    else:
        weights = model.get_output_embeddings().weight[batch["line_identifiers"]]
        scores = torch.einsum("dh,dlh->dl", turn_states, weights[rows])
    return scores.masked_fill(~batch["line_mask"][rows], float("-inf"))


def decision_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the decisions against their target distributions."""
    log_probabilities = scores.float().log_softmax(-1)
    # Padding lines have target 0 and log-probability -inf, whose product would be NaN.
    return -(targets * log_probabilities.masked_fill(targets == 0, 0.0)).sum(-1).mean()


def correct(scores: Tensor, targets: Tensor) -> Tensor:
    """For each decision, whether the likeliest line is one of the expected."""
    return targets.gather(-1, scores.argmax(-1, keepdim=True)).squeeze(-1) > 0
