"""Read-outs in torch: from hidden states to scores over the lines of a prefix.

The numpy twins that engines use are in `routing.pointer`; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.encoder import TEXTS_A_TURN, EncoderTokenizer
from routing.pointer import LineState
from training.encoder import embed, text_batch
from training.examples import Example


class Pointer(nn.Module):
    """Scaled cosine of two projections; see `routing.pointer`.

    Both start as the same matrix with orthonormal rows, so that at first a score is the plain
    likeness of two states; `standardise` makes it the likeness of what is particular to them.
    With an encoder's vectors of `encoder` dimensions behind the states (`routing.encoder`), so many
    rows compare those, and how much the states weigh beside them is fitted with the scale.
    """

    def __init__(self, hidden: int, dim: int, lines: LineState = "end", encoder: int = 0) -> None:
        super().__init__()
        self.lines: LineState = lines
        self.hidden = hidden
        self.encoder = encoder
        self.query = nn.Linear(hidden + TEXTS_A_TURN * encoder, dim)
        self.key = nn.Linear(hidden + encoder, dim)
        # One element, not none: DeepSpeed cannot save a parameter without dimensions.
        self.log_scale = nn.Parameter(torch.zeros(1))
        # What a released head has folded in. Buffers: under ZeRO-3 a process holds but a part of a
        # parameter, and what is written into it before training is lost.
        self.register_buffer("start_scale", torch.full((1,), math.log(10.0)))
        self.register_buffer("state_gain", torch.ones(1))
        for name, width in (("query", self.query.in_features), ("key", self.key.in_features)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_spread", torch.ones(width))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        query, key = self.query.weight, self.key.weight
        for part in (query, key, self.query.bias, self.key.bias):
            nn.init.zeros_(part)
        rows, hidden = len(query) - self.encoder, self.hidden
        query[:rows, :hidden] = key[:rows, :hidden] = nn.init.orthogonal_(torch.empty(rows, hidden))
        if self.encoder:
            same = nn.init.orthogonal_(torch.empty(self.encoder, self.encoder))
            key[rows:, hidden:] = same
            # The turn itself says most; what was said before it helps where it says little.
            query[rows:, hidden:] = torch.cat([share * same for share in (1.0, 0.25, 0.5)], dim=1)

    @torch.no_grad()
    def standardise(self, turn_states: Tensor, line_states: Tensor) -> None:
        """See states as these samples [N, H] do: each dimension centred, and of equal spread.

        A language model's states share a large common part, and few dimensions outweigh the rest
        (arXiv 2402.17762), so their plain likeness tells little.
        """
        for name, states in (("query", turn_states), ("key", line_states)):
            self.get_buffer(f"{name}_mean").copy_(states.float().mean(0))
            self.get_buffer(f"{name}_spread").copy_(states.float().std(0) + 1e-3)

    @torch.no_grad()
    def fit_scale(self, samples: Iterable[tuple[Tensor, Tensor, Batch]]) -> None:
        """Set the scale under which turn states, line states and their batches are likeliest."""
        samples = list(samples)
        scales = torch.logspace(0, 2, 41)
        gains = (0.1, 0.2, 0.4, 0.7, 1.0) if self.encoder else (1.0,)
        losses = torch.zeros(len(gains), len(scales))
        for row, gain in enumerate(gains):
            self.get_buffer("state_gain").fill_(gain)
            for turns, lines, batch in samples:
                cosines = torch.einsum("dh,dlh->dl", self.queries(turns), self.keys(lines))
                cosines = cosines.masked_fill(~batch["line_mask"], -torch.inf).cpu()
                targets = batch["targets"].cpu()
                for column, scale in enumerate(scales):
                    shares = (scale * cosines).log_softmax(-1).masked_fill(targets == 0, 0.0)
                    losses[row, column] -= (targets * shares).sum()
        best_gain, best_scale = divmod(int(losses.argmin()), len(scales))
        self.get_buffer("state_gain").fill_(gains[best_gain])
        self.get_buffer("start_scale").fill_(scales[best_scale].log())

    def queries(self, turns: Tensor) -> Tensor:
        """Unit queries [..., dim] of turns' features [..., H + 3E]."""
        return self._project("query", turns)

    def keys(self, lines: Tensor) -> Tensor:
        """Unit keys [..., dim] of lines' features [..., H + E]."""
        return self._project("key", lines)

    def _project(self, name: str, features: Tensor) -> Tensor:
        linear: Any = self.get_submodule(name)
        seen = (features - self.get_buffer(f"{name}_mean")) * self._weights(name)
        return F.normalize(linear(seen.to(linear.weight.dtype)).float(), dim=-1)

    def _weights(self, name: str) -> Tensor:
        """What each of the features counts for, before the projection."""
        weights = 1.0 / self.get_buffer(f"{name}_spread")
        gain = self.get_buffer("state_gain").to(weights.dtype).expand(self.hidden)
        return weights * torch.cat([gain, weights.new_ones(len(weights) - self.hidden)])

    def forward(
        self, turn_states: Tensor, line_states: Tensor, others: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores [D, L] of turns [D, H + 3E] against their own lines [D, L, H + E], and keys.

        With unit keys `others` [N, dim], scores against those follow: [D, L + N].
        """
        queries, keys = self.queries(turn_states), self.keys(line_states)
        scores = torch.einsum("dh,dlh->dl", queries, keys)
        if others is not None:
            scores = torch.cat([scores, queries @ others.T], dim=-1)
        return (self.log_scale + self.start_scale).float().exp() * scores, keys

    def folded(self) -> dict[str, Tensor]:
        """The head as `routing.pointer` reads it: standardising is part of the projections."""
        scale = self.log_scale.detach().float() + self.get_buffer("start_scale").float()
        folded = {"log_scale": scale.reshape(())}
        for name, projection in (("query", self.query), ("key", self.key)):
            weight = projection.weight.detach().float() * self._weights(name).float()
            mean = self.get_buffer(f"{name}_mean").float()
            folded[f"{name}.weight"] = weight.contiguous()
            folded[f"{name}.bias"] = projection.bias.detach().float() - weight @ mean
        return folded


class Batch(dict[str, Tensor]):
    """Tensors of B sequences with D decisions in all and at most L lines each.

    input_ids [B, T] with attention_mask [B, T], or, packed, [1, T] with position_ids [1, T];
    decision_rows, decision_positions [D]: where decisions are read out; line_starts, line_ends,
    line_identifiers, line_mask [D, L]: the lines in question, in the same sequence; targets [D, L];
    soft_targets [D, L], zero where there are none. With an encoder also what
    `training.encoder.text_batch` makes.
    """


def collate(
    examples: Sequence[Example],
    pad: int,
    *,
    packed: bool = False,
    encoder: EncoderTokenizer | None = None,
) -> Batch:
    """Pad on the right, or lay end to end; `line_mask` tells lines from padding."""
    most = max(len(example.line_ends) for example in examples)
    owners = [row for row, ex in enumerate(examples) for _ in ex.decisions]
    # Where a sequence begins: its own row's start, or its place in the one row.
    lengths = [example.length for example in examples]
    offsets = [sum(lengths[:row]) if packed else 0 for row in range(len(examples))]

    def lines(values: Sequence[Sequence[int]], shift: bool = False) -> Tensor:
        rows = [
            [*(v + (offsets[row] if shift else 0) for v in each), *[0] * (most - len(each))]
            for row, each in enumerate(values)
        ]
        return torch.tensor(rows)[owners]

    def wide(values: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([[*each, *[0.0] * (most - len(each))] for each in values])

    batch = Batch(
        line_starts=lines([ex.line_starts for ex in examples], shift=True),
        line_ends=lines([ex.line_ends for ex in examples], shift=True),
        line_identifiers=lines([ex.identifiers for ex in examples]),
        line_mask=lines([[1] * len(ex.line_ends) for ex in examples]).bool(),
        decision_rows=torch.tensor([0] * len(owners) if packed else owners),
        decision_positions=torch.tensor(
            [p + offsets[row] for row, ex in enumerate(examples) for p in ex.decisions]
        ),
        targets=wide([target for ex in examples for target in ex.targets]),
        soft_targets=wide([soft for ex in examples for soft in ex.soft_or_zero]),
    )
    if encoder is not None:
        turns = [texts for ex in examples for texts in ex.turn_texts]
        batch.update(text_batch(encoder, turns, [examples[o].line_texts for o in owners], most))
    if packed:
        ids = [[token for ex in examples for token in ex.input_ids]]
        batch["input_ids"] = torch.tensor(ids)
        batch["position_ids"] = torch.tensor([[i for ex in examples for i in range(ex.length)]])
    else:
        longest = max(lengths)
        batch["input_ids"] = torch.tensor(
            [[*ex.input_ids, *[pad] * (longest - ex.length)] for ex in examples]
        )
        batch["attention_mask"] = torch.tensor(
            [[1] * length + [0] * (longest - length) for length in lengths]
        )
    return batch


def model_inputs(batch: Batch) -> dict[str, Tensor]:
    """What of a batch the model itself takes."""
    names = ("input_ids", "attention_mask", "position_ids")
    return {name: batch[name] for name in names if name in batch}


def line_states(states: Tensor, batch: Batch, kind: LineState) -> Tensor:
    """States [D, L, H] of each decision's lines, from states [B, T, H].

    See `routing.pointer.line_states`.
    """
    rows, starts, ends = batch["decision_rows"][:, None], batch["line_starts"], batch["line_ends"]
    if kind == "end":
        return states[rows, ends]
    # Sums up to each position make the mean over any span two look-ups; float32, for long sums.
    sums = F.pad(states.float().cumsum(1), (0, 0, 1, 0))
    means = (sums[rows, ends + 1] - sums[rows, starts]) / (ends + 1 - starts)[..., None]
    return means.to(states.dtype)


def turn_states(states: Tensor, batch: Batch) -> Tensor:
    """States [D, H] that decisions are read out from."""
    return states[batch["decision_rows"], batch["decision_positions"]]


def features(
    model: nn.Module, states: Tensor, batch: Batch, kind: LineState
) -> tuple[Tensor, Tensor]:
    """What a pointer reads: of turns [D, H + 3E] and of lines [D, L, H + E], from states [B, T, H].

    E is 0 without an encoder; see `routing.encoder`.
    """
    turns, lines = turn_states(states, batch), line_states(states, batch, kind)
    encoder = getattr(model, "encoder", None)
    if encoder is None:
        return turns, lines
    vectors = embed(encoder, batch["encoder_ids"], batch["encoder_mask"]).to(states.dtype)
    return (
        torch.cat([turns, vectors[batch["turn_texts"]].flatten(1)], dim=-1),
        torch.cat([lines, vectors[batch["line_texts"]]], dim=-1),
    )


def read_out(model: nn.Module, states: Tensor, batch: Batch) -> Tensor:
    """Scores [D, L] from final states [B, T, H]; lines that are padding get -inf.

    Uses the model's `pointer` if it has one, else the output embeddings of the identifiers.
    """
    pointer = getattr(model, "pointer", None)
    if pointer is not None:
        scores, _ = pointer(*features(model, states, batch, pointer.lines))
    else:
        turns = turn_states(states, batch)
        weights = model.get_output_embeddings().weight[batch["line_identifiers"]]
        scores = torch.einsum("dh,dlh->dl", turns, weights)
    masked: Tensor = scores.masked_fill(~batch["line_mask"], float("-inf"))
    return masked


def correct(scores: Tensor, targets: Tensor) -> Tensor:
    """For each decision, whether the likeliest line is one of the expected."""
    return targets.gather(-1, scores.argmax(-1, keepdim=True)).squeeze(-1) > 0
