"""Losses over the lines that a decision chooses between."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.readout import Batch
from training.recipe import TrainRecipe

SAME_LINE = 0.85
"""A line of another conversation whose key is this like the right one's may be the same task."""


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What of a recipe the loss depends on; see `TrainRecipe`."""

    label_smoothing: float = 0.0
    none_weight: float = 1.0
    soft_weight: float = 0.0
    soft_temperature: float = 1.0

    @classmethod
    def of(cls, recipe: TrainRecipe) -> LossSettings:
        soft = recipe.distillation
        return cls(
            recipe.label_smoothing,
            recipe.none_weight,
            soft.weight if soft else 0.0,
            soft.temperature if soft else 1.0,
        )


def decision_loss(scores: Tensor, batch: Batch, settings: LossSettings | None = None) -> Tensor:
    """Mean cross-entropy of scores [D, L + N] against the targets [D, L] of a batch.

    Lines after the L-th are negatives of other conversations. Scores that are -inf take no part.
    """
    settings = settings or LossSettings()
    extra = scores.shape[-1] - batch["targets"].shape[-1]
    targets = F.pad(_smoothed(batch, settings.label_smoothing), (0, extra))
    loss = _cross_entropy(scores, targets)
    soft = batch.get("soft_targets")
    if settings.soft_weight and soft is not None:
        given = soft.sum(-1) > 0
        heat = settings.soft_temperature
        lines = scores[:, : soft.shape[-1]]
        softened = _tempered(soft, heat)
        # Scaling by the squared temperature keeps gradients as large as the labels' (1503.02531).
        distilled = heat**2 * _cross_entropy(lines / heat, softened)
        mixed = (1 - settings.soft_weight) * loss + settings.soft_weight * distilled
        loss = torch.where(given, mixed, loss)
    weights = torch.where(_is_none(batch), settings.none_weight, 1.0)
    return (weights * loss).sum() / weights.sum()


def vocabulary_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of logits [D, vocabulary] against the right lines' identifiers."""
    log_probabilities = logits.float().log_softmax(-1).gather(-1, batch["line_identifiers"])
    return -(batch["targets"] * log_probabilities).sum(-1).mean()


class Negatives:
    """Keys of lines seen in earlier passes: further negatives at no further cost (1911.05722)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: deque[Tensor] = deque(maxlen=most)

    def keys(self) -> Tensor | None:
        """Unit keys [N, dim]; None while there are none."""
        return torch.stack(list(self._keys)) if self._keys else None

    def mask(self, scores: Tensor, keys: Tensor, batch: Batch, others: Tensor) -> Tensor:
        """Scores [D, L + N] with -inf for negatives that may well be the right line again."""
        right = batch["targets"] > 0
        likeness = torch.einsum("dlh,nh->dln", keys, others)
        same = ((likeness > SAME_LINE) & right[..., None]).any(1)
        lines = batch["targets"].shape[-1]
        return torch.cat([scores[:, :lines], scores[:, lines:].masked_fill(same, -torch.inf)], -1)

    def add(self, keys: Tensor, batch: Batch) -> None:
        """Keep the routes' keys [D, L, dim] of a pass, each conversation's once, without "none"."""
        mask = batch["line_mask"]
        seen: set[tuple[int, int]] = set()
        for row in range(len(keys)):
            origin = (int(batch["decision_rows"][row]), int(batch["line_starts"][row, 0]))
            if origin not in seen:
                seen.add(origin)
                self._keys.extend(keys[row, : int(mask[row].sum()) - 1].detach().unbind(0))


def _smoothed(batch: Batch, share: float) -> Tensor:
    mask = batch["line_mask"].float()
    even = mask / mask.sum(-1, keepdim=True)
    return (1 - share) * batch["targets"] + share * even if share else batch["targets"]


def _is_none(batch: Batch) -> Tensor:
    last = batch["line_mask"].sum(-1, keepdim=True) - 1
    return batch["targets"].gather(-1, last).squeeze(-1) > 0


def _tempered(probabilities: Tensor, heat: float) -> Tensor:
    powered = probabilities.pow(1 / heat)
    return powered / powered.sum(-1, keepdim=True).clamp_min(1e-12)


def _cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    log_probabilities = scores.float().log_softmax(-1)
    # Padding lines have target 0 and log-probability -inf, whose product would be NaN.
    return -(targets * log_probabilities.masked_fill(targets == 0, 0.0)).sum(-1)
