"""The decision loss and its options, on numbers small enough to check by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from routing_data import records
from tiny import make_model

from routing.layout import Budget, Layout, choose_identifiers
from routing.tokenizer import FileTokenizer
from scripts.base_model import NANO_BASE, ensure_base
from training.examples import Example, encode
from training.losses import LossSettings, Negatives, decision_loss, vocabulary_loss
from training.readout import Batch, Pointer, collate, line_states, model_inputs, turn_states


@pytest.fixture(scope="module")
def tokenizer() -> FileTokenizer:
    return FileTokenizer(ensure_base(NANO_BASE) / "tokenizer.json")


def batch_of(targets: list[list[float]], **more: torch.Tensor) -> Batch:
    """Decisions over two routes and "none"."""
    return Batch(
        targets=torch.tensor(targets),
        line_mask=torch.ones(len(targets), len(targets[0]), dtype=torch.bool),
        decision_rows=torch.arange(len(targets)),
        line_starts=torch.zeros(len(targets), len(targets[0]), dtype=torch.long),
        **more,
    )


SCORES = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def nll(row: int, column: int) -> float:
    return -float(SCORES[row].log_softmax(-1)[column])


def test_the_plain_loss_is_the_mean_cross_entropy() -> None:
    batch = batch_of([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(decision_loss(SCORES, batch)) == pytest.approx((nll(0, 0) + nll(1, 2)) / 2)


def test_decisions_for_none_can_weigh_more_or_less() -> None:
    batch = batch_of([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    loss = decision_loss(SCORES, batch, LossSettings(none_weight=3.0))
    assert float(loss) == pytest.approx((nll(0, 0) + 3 * nll(1, 2)) / 4)


def test_smoothing_spreads_a_share_over_the_offered_lines() -> None:
    batch = batch_of([[1.0, 0.0, 0.0]])
    loss = decision_loss(SCORES[:1], batch, LossSettings(label_smoothing=0.3))
    expected = 0.8 * nll(0, 0) + 0.1 * nll(0, 1) + 0.1 * nll(0, 2)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_soft_targets_share_the_loss_where_there_are_some() -> None:
    soft = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 0.0]])
    batch = batch_of([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], soft_targets=soft)
    loss = decision_loss(SCORES, batch, LossSettings(soft_weight=0.5))
    distilled = 0.5 * nll(0, 0) + 0.25 * nll(0, 1) + 0.25 * nll(0, 2)
    first = 0.5 * nll(0, 0) + 0.5 * distilled
    assert float(loss) == pytest.approx((first + nll(1, 2)) / 2, rel=1e-5)


def test_lines_of_other_conversations_are_negatives_but_not_the_right_line_again() -> None:
    batch = batch_of([[1.0, 0.0, 0.0]])
    keys = torch.eye(4)[None, :3]  # the right line's key is the first unit vector
    others = torch.stack([torch.eye(4)[3], torch.tensor([0.99, 0.14, 0.0, 0.0])])
    scores = torch.tensor([[2.0, 0.0, 0.0, 1.0, 1.9]])
    masked = Negatives(8).mask(scores, keys, batch, others)
    assert masked.tolist() == [[2.0, 0.0, 0.0, 1.0, -math.inf]]
    expected = -float(torch.tensor([2.0, 0.0, 0.0, 1.0]).log_softmax(-1)[0])
    assert float(decision_loss(masked, batch)) == pytest.approx(expected, rel=1e-5)


def test_negatives_hold_each_route_once_and_never_none() -> None:
    negatives = Negatives(4)
    batch = batch_of([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    batch["decision_rows"] = torch.tensor([0, 0])  # two turns of one conversation
    keys = torch.arange(12.0).reshape(2, 3, 2)
    negatives.add(keys, batch)
    kept = negatives.keys()
    assert kept is not None
    assert kept.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    for _ in range(5):
        negatives.add(keys, batch)
    assert len(negatives.keys()) == 4  # type: ignore[arg-type]


def test_the_vocabulary_loss_has_all_tokens_as_rivals() -> None:
    logits = torch.zeros(1, 10)
    batch = batch_of([[1.0, 0.0, 0.0]], line_identifiers=torch.tensor([[3, 5, 7]]))
    assert float(vocabulary_loss(logits, batch)) == pytest.approx(math.log(10))


@pytest.mark.parametrize("lines", ["end", "mean"])
def test_packing_does_not_change_scores(tokenizer: FileTokenizer, lines: str) -> None:
    model = make_model("llama", seed=3)
    pointer = Pointer(64, 32, lines)  # type: ignore[arg-type]
    layout = Layout(tokenizer, Budget(), choose_identifiers(tokenizer, 20), version=2)
    known = [*records(2, turns=1), *records(2, seed=1, turns=4)]
    examples: list[Example] = [ex for record in known for ex, _ in encode(layout, record)]
    scores = []
    for packed in (False, True):
        batch = collate(examples, pad=2, packed=packed)
        with torch.inference_mode():
            states = model.base_model(**model_inputs(batch), use_cache=False).last_hidden_state
            found, _ = pointer(turn_states(states, batch), line_states(states, batch, lines))  # type: ignore[arg-type]
        scores.append(found.masked_fill(~batch["line_mask"], 0.0))
    assert torch.allclose(scores[0], scores[1], atol=1e-4)
    assert batch["input_ids"].shape == (1, sum(example.length for example in examples))


def test_soft_targets_are_read_and_renamed(tokenizer: FileTokenizer, tmp_path: Path) -> None:
    from training.data import Collator, read_soft_targets
    from training.recipe import RecipeError, TrainRecipe

    (record,) = records(1, turns=1)
    names = [route.name for route in record.routes]
    path = tmp_path / "soft.jsonl"
    shares = {names[0]: 0.7, names[1]: 0.1, names[2]: 0.1, "none": 0.1}
    path.write_text(
        f'{{"id": "{record.id}", "message": 0, "distribution": {shares}}}\n'.replace("'", '"')
    )
    recipe = TrainRecipe(
        name="t",
        base_model="b",
        learning_rate=1.0,
        max_steps=1,
        distillation={"targets": path},  # type: ignore[arg-type]
    )
    layout = Layout(tokenizer, Budget())
    collator = Collator(recipe, layout, 2, read_soft_targets(path))
    (example,) = collator.examples(record.model_dump_json())
    assert example.soft_targets is not None
    assert sorted(example.soft_targets[0]) == pytest.approx([0.1, 0.1, 0.1, 0.7])
    path.write_text("{}\n")
    with pytest.raises(RecipeError, match=r"soft\.jsonl:1"):
        read_soft_targets(path)
