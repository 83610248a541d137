"""TRL's trainer with the decision loss: cross-entropy over the offered lines at each decision."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from trl import SFTTrainer

from training.readout import Batch, correct, decision_loss, read_out


def plain_model(model: nn.Module) -> nn.Module:
    """The transformers model inside PEFT's wrapper."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    assert isinstance(inner, nn.Module)
    return inner


class RoutingTrainer(SFTTrainer):
    """Decides in one forward pass over each conversation and trains all of its decisions."""

    optimizer: Any

    def __init__(self, *args: Any, head_learning_rate: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_learning_rate = head_learning_rate
        # The loss is a mean over decisions already; the trainer must average accumulation steps.
        self.model_accepts_loss_kwargs = False
        window = self.args.logging_steps * self.args.gradient_accumulation_steps
        self._recent: deque[tuple[int, int]] = deque(maxlen=window)
        self._decisions = 0

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """AdamW; the pointer, which starts from nothing, learns at a rate of its own."""
        if self._head_learning_rate is not None and self.optimizer is None:
            trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
            head = [p for n, p in trained if ".pointer." in f".{n}"]
            rest = [p for n, p in trained if ".pointer." not in f".{n}"]
            self.optimizer = torch.optim.AdamW(
                [{"params": rest}, {"params": head, "lr": self._head_learning_rate}],
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
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        )
        plain = plain_model(self.accelerator.unwrap_model(model))
        scores: Tensor = read_out(plain, outputs.hidden_states[-1], inputs)
        loss = decision_loss(scores, inputs["targets"])
        if self.model.training:
            hits = correct(scores.detach(), inputs["targets"])
            self._recent.append((int(hits.sum()), hits.numel()))
            self._decisions += hits.numel()
        return (loss, {"scores": scores}) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        seen = sum(total for _, total in self._recent)
        if seen and "loss" in logs:
            logs["accuracy"] = round(sum(hits for hits, _ in self._recent) / seen, 4)
            logs["decisions"] = float(self._decisions)
        super().log(logs, start_time)
