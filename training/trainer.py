"""TRL's trainer with the decision loss: cross-entropy over the offered lines at each decision."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from trl import SFTTrainer

from training.data import Collator
from training.losses import LossSettings, Negatives, decision_loss, vocabulary_loss
from training.readout import Batch, correct, features, model_inputs
from training.recipe import TrainRecipe
from training.speed import Meter


def plain_model(model: nn.Module) -> nn.Module:
    """The transformers model inside PEFT's wrapper."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    assert isinstance(inner, nn.Module)
    return inner


class RoutingTrainer(SFTTrainer):
    """Decides in one forward pass over each conversation and trains all of its decisions."""

    optimizer: Any

    def __init__(
        self, *args: Any, recipe: TrainRecipe, data_collator: Collator, meter: Meter, **kwargs: Any
    ) -> None:
        super().__init__(*args, data_collator=data_collator, **kwargs)
        self._recipe = recipe
        self._settings = LossSettings.of(recipe)
        self._negatives = Negatives(recipe.batch_negatives) if recipe.batch_negatives else None
        # The loss is a mean over decisions already; the trainer must average accumulation steps.
        self.model_accepts_loss_kwargs = False
        window = self.args.logging_steps * self.args.gradient_accumulation_steps
        self._recent: deque[tuple[int, int]] = deque(maxlen=window)
        self._meter = meter
        self.add_callback(_Epochs(data_collator))
        self.add_callback(meter)

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """AdamW; the pointer, which starts from nothing, learns at a rate of its own."""
        head_rate = self._recipe.head_learning_rate
        if head_rate is not None and self.optimizer is None:
            trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
            head = [p for n, p in trained if ".pointer." in f".{n}"]
            rest = [p for n, p in trained if ".pointer." not in f".{n}"]
            self.optimizer = torch.optim.AdamW(
                [{"params": rest}, {"params": head, "lr": head_rate}],
                lr=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
            )
        return super().create_optimizer()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Any:
        with self._meter.forward(inputs):
            scores, loss = self._decide(model, inputs)
        if self.model.training:
            hits = correct(scores.detach(), inputs["targets"])
            self._recent.append((int(hits.sum()), hits.numel()))
        return (loss, {"scores": scores}) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        with self._meter.work():
            return super().training_step(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        seen = sum(total for _, total in self._recent)
        if seen and "loss" in logs:
            logs["accuracy"] = round(sum(hits for hits, _ in self._recent) / seen, 4)
            logs.update(self._meter.figures())
        super().log(logs, start_time)

    def _decide(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores [D, L] over the offered lines, and the loss."""
        aux = self._recipe.router_aux_loss
        options: dict[str, Any] = {"output_router_logits": True} if aux else {}
        if self._recipe.read_out == "pointer":
            outputs = model(
                **model_inputs(batch),
                **options,
                output_hidden_states=True,
                use_cache=False,
                logits_to_keep=1,
            )
            scores, loss = self._by_pointer(model, outputs.hidden_states[-1], batch)
        else:
            # Logits at the union of the decisions' positions; a row's others cost little.
            positions, column = batch["decision_positions"].unique(return_inverse=True)
            outputs = model(
                **model_inputs(batch), **options, use_cache=False, logits_to_keep=positions
            )
            logits = outputs.logits[batch["decision_rows"], column]
            scores = logits.gather(-1, batch["line_identifiers"])
            scores = scores.masked_fill(~batch["line_mask"], -torch.inf)
            if self._recipe.loss == "vocabulary":
                loss = vocabulary_loss(logits, batch)
            else:
                loss = decision_loss(scores, batch, self._settings)
        return scores, loss + aux * outputs.aux_loss if aux else loss

    def _by_pointer(self, model: nn.Module, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        plain: Any = plain_model(self.accelerator.unwrap_model(model))
        turns, lines = features(plain, states, batch, self._recipe.pointer_lines)
        others = self._negatives.keys() if self._negatives else None
        scores, keys = plain.pointer(turns, lines, others)
        count = lines.shape[1]
        offered = scores[:, :count].masked_fill(~batch["line_mask"], -torch.inf)
        scores = torch.cat([offered, scores[:, count:]], dim=-1)
        if self._negatives is not None:
            if others is not None:
                scores = self._negatives.mask(scores, keys.detach(), batch, others)
            if self.model.training:
                self._negatives.add(keys, batch)
        return scores[:, :count], decision_loss(scores, batch, self._settings)


class _Epochs(TrainerCallback):
    """Tells the collator which epoch it draws for, and how far a curriculum has come."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A resumed run stands in the middle of an epoch; a whole one ends a hair off an integer.
        self._collator.epoch = int((state.epoch or 0.0) + 1e-9)
        self.on_step_begin(args, state, control, **kwargs)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # In eighths: batches are made a step ahead, and a resumed run must make the same ones.
        self._collator.progress = int(8 * (state.epoch or 0.0) + 1e-9) / 8
