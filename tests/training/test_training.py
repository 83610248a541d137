"""Training for real on tiny models: both read-outs, resumption, checkpoints that others load."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from routing_data import records
from safetensors.torch import load_file, save_file
from tiny import copy_tokenizer, make_model

from routing.decision import Calibration
from routing.errors import InvalidRecord
from routing.layout import Budget, Layout, choose_identifiers
from routing.manifest import load_manifest
from routing.pointer import PointerHead
from routing.tasks import Route
from routing.tokenizer import FileTokenizer
from serving.engine.checkpoint import load_model
from serving.engine.contract import read_contract
from training.calibrate import calibrate
from training.card import read_report, write_card
from training.examples import encode
from training.losses import decision_loss
from training.readout import Pointer, collate
from training.recipe import RecipeError, TrainRecipe, load_recipe
from training.scoring import ModelDecider
from training.train import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_model("llama", seed=0).save_pretrained(folder)
    copy_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    path.write_text("".join(record.model_dump_json() + "\n" for record in records(120)))
    return path


def recipe(**updates: Any) -> TrainRecipe:
    values: dict[str, Any] = {
        "name": "tiny",
        "base_model": "tiny",
        "pointer_dim": 32,
        "lora": {"r": 8, "alpha": 16, "targets": ["q_proj", "v_proj", "up_proj", "down_proj"]},
        "batch_conversations": 6,
        "max_steps": 40,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "schedule": "constant",
        "save_every": 10,
    }
    return TrainRecipe.model_validate({**values, **updates})


def losses(run: Path) -> list[float]:
    state = sorted((run / "steps").glob("*/trainer_state.json"), key=lambda p: p.stat().st_mtime)
    return [e["loss"] for e in json.loads(state[-1].read_text())["log_history"] if "loss" in e]


@pytest.mark.parametrize("read_out", ["pointer", "identifier"])
def test_training_learns_and_its_checkpoint_decides(
    base: Path, tmp_path: Path, read_out: str
) -> None:
    # A tiny random model cannot generalise, but it can learn four conversations by heart.
    known = records(4)
    few = tmp_path / "few.jsonl"
    few.write_text("".join(record.model_dump_json() + "\n" for record in known))
    as_written = {"order": False, "identifiers": False, "wordings": False, "distractors": False}
    small = recipe(read_out=read_out, batch_conversations=4, max_steps=60, redraw=as_written)
    checkpoint = train(small, base, "test", few, tmp_path)
    course = losses(tmp_path)
    assert course[-1] < 0.5 * course[0]

    manifest = load_manifest(checkpoint)
    assert manifest.read_out.kind == read_out
    assert manifest.weights == "adapter"
    names = {path.name for path in checkpoint.iterdir()} - {"manifest.json", "README.md"}
    assert names == set(manifest.files)
    assert f"read-out `{read_out}`" in (checkpoint / "README.md").read_text()
    assert ("pointer.safetensors" in names) == (read_out == "pointer")
    assert str(base) not in "".join(p.read_text() for p in checkpoint.glob("*.json"))

    # What was trained is what was saved: the loaded checkpoint fits the data it was trained on,
    # which it knows in one order alone.
    decider = ModelDecider.from_checkpoint(checkpoint, base, as_listed=True)
    if read_out == "pointer":
        assert accuracy(decider, known) > 0.8


def accuracy(decider: ModelDecider, known: list[Any]) -> float:
    """Share of decisions whose likeliest outcome is right."""
    hits = [
        (max(decision.distribution, key=lambda n: decision.distribution[n]))
        in (label.expected or ["none"])
        for record, decisions in zip(known, decider.decide_all(known), strict=True)
        for label, decision in zip(record.decisions, decisions, strict=True)
    ]
    return sum(hits) / len(hits)


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(
    base: Path, data: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(recipe(max_steps=8, save_every=4), base, "test", data, whole)
    train(recipe(max_steps=8, save_every=4), base, "test", data, cut)
    for path in (cut / "steps" / "checkpoint-8", cut / "checkpoint"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    train(recipe(max_steps=8, save_every=4), base, "test", data, cut)
    same = [(run / "checkpoint" / "adapter_model.safetensors").read_bytes() for run in (whole, cut)]
    assert same[0] == same[1]


def test_full_fine_tuning_leaves_a_whole_model(base: Path, data: Path, tmp_path: Path) -> None:
    small = recipe(lora=None, max_steps=3, learning_rate=1e-3)
    checkpoint = train(small, base, "test", data, tmp_path)
    manifest = load_manifest(checkpoint)
    assert manifest.weights == "merged"
    decisions = list(ModelDecider.from_checkpoint(checkpoint, None).decide_all(records(2)))
    assert [len(each) for each in decisions] == [3, 3]


@pytest.mark.parametrize("lora", [True, False])
def test_the_first_layers_alone_are_kept_served_and_said(
    base: Path, data: Path, tmp_path: Path, lora: bool
) -> None:
    updates: dict[str, Any] = {} if lora else {"lora": None, "learning_rate": 1e-3}
    short = recipe(layers=1, layout_version=2, pointer_lines="mean", max_steps=2, **updates)
    checkpoint = train(short, base, "test", data, tmp_path)
    assert checkpoint is not None
    manifest = load_manifest(checkpoint)
    assert (manifest.base.layers, manifest.layout_version) == (1, 2)
    own = base if lora else None
    decider = ModelDecider.from_checkpoint(checkpoint, own)
    engine = load_model(read_contract(checkpoint), own)
    assert len(engine.backbone.layers) == len(decider._model.base_model.layers) == 1
    assert [len(each) for each in decider.decide_all(records(2))] == [3, 3]


def test_frozen_embeddings_stay_what_they_were(base: Path, data: Path, tmp_path: Path) -> None:
    small = recipe(lora=None, max_steps=2, learning_rate=1e-3)
    checkpoint = train(small, base, "test", data, tmp_path)
    assert checkpoint is not None
    before, after = (load_file(folder / "model.safetensors") for folder in (base, checkpoint))
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"model.embed_tokens.weight"}


def test_another_number_of_processes_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="processes is 2, but 1 were started"):
        train(recipe(processes=2, accumulation=2), base, "test", data, tmp_path)
    with pytest.raises(ValueError, match="accumulation must be a multiple of processes"):
        recipe(processes=2, accumulation=3)


def test_two_processes_leave_one_checkpoint(base: Path, data: Path, tmp_path: Path) -> None:
    values = recipe(processes=2, accumulation=2, max_steps=2, threads=1).model_dump()
    values["base_model"] = str(base)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "data" / "train").mkdir(parents=True)
    shutil.copyfile(data, tmp_path / "data" / "train" / data.name)
    # By the command, which starts torchrun; other tests fork the processes themselves.
    command = [sys.executable, "-m", "scripts.cli", "train", str(tmp_path / "two.yaml")]
    command += ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-2000:]
    decider = ModelDecider.from_checkpoint(tmp_path / "run" / "checkpoint", base)
    assert [len(each) for each in decider.decide_all(records(2))] == [3, 3]


def test_calibration_is_stored_in_the_manifest(base: Path, data: Path, tmp_path: Path) -> None:
    checkpoint = train(recipe(max_steps=3), base, "test", data, tmp_path)
    before = load_manifest(checkpoint)
    fitted = calibrate(checkpoint, base, data)
    after = load_manifest(checkpoint)
    assert after.calibration == fitted != Calibration()
    assert after.version != before.version
    assert after.files == before.files


def test_the_card_shows_measured_results(base: Path, data: Path, tmp_path: Path) -> None:
    from training.evaluation.report import evaluate, write
    from training.evaluation.rules import FirstRoute

    checkpoint = train(recipe(max_steps=1), base, "test", data, tmp_path)
    line = {
        "id": "1",
        "conversation_id": "1",
        "turn": 0,
        "routes": [{"name": "garden", "description": "The garden."}],
        "messages": [{"role": "user", "content": "to the garden"}],
        "expected": ["garden"],
    }
    (tmp_path / "bench.jsonl").write_text(json.dumps(line) + "\n")
    report = tmp_path / "report.json"
    write(evaluate([tmp_path / "bench.jsonl"], [FirstRoute()], progress=False), report)
    card = write_card(checkpoint, read_report(report)).read_text()
    assert f"| bench | {FirstRoute().name} | 100.0 [100.0, 100.0] |" in card
    assert load_manifest(checkpoint).version in card


def test_training_scores_equal_the_read_out_of_engines(tmp_path: Path) -> None:
    torch.manual_seed(1)
    pointer = Pointer(hidden=16, dim=8)
    torch.nn.init.normal_(pointer.key.weight)
    turns, lines = torch.randn(3, 16), torch.randn(3, 5, 16)
    # A released head has standardising folded into its projections.
    pointer.standardise(3 + 2 * torch.randn(50, 16), torch.randn(50, 16) - 1)
    save_file(pointer.folded(), tmp_path / "pointer.safetensors")
    head = PointerHead.load(tmp_path / "pointer.safetensors")
    expected = pointer(turns, lines)[0].detach().numpy()
    for row in range(3):
        scores = head.scores(turns[row].numpy(), head.keys(lines[row].numpy()))
        np.testing.assert_allclose(scores, expected[row], rtol=1e-4, atol=1e-5)


def test_batches_do_not_change_scores(base: Path) -> None:
    tokenizer = FileTokenizer(base / "tokenizer.json")
    model = make_model("llama", seed=3)
    model.pointer = Pointer(64, 32)
    layout = Layout(tokenizer, Budget())
    known = [*records(4, turns=1), *records(4, seed=1, turns=5)]
    one_by_one = ModelDecider("one", model, layout, Calibration(), batch_tokens=1)
    together = ModelDecider("all", model, layout, Calibration(), batch_tokens=100_000)
    for single, batched in zip(one_by_one.scores(known), together.scores(known), strict=True):
        for left, right in zip(single, batched, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-3)


def test_a_decision_does_not_see_what_follows_it(base: Path) -> None:
    model = make_model("llama", seed=3)
    model.pointer = Pointer(64, 32)
    layout = Layout(FileTokenizer(base / "tokenizer.json"), Budget())
    decider = ModelDecider("d", model, layout, Calibration())
    (long,) = records(1, turns=4)
    short = long.model_copy(update={"messages": long.messages[:3], "decisions": long.decisions[:2]})
    (scores_long,), (scores_short,) = decider.scores([long]), decider.scores([short])
    for left, right in zip(scores_long, scores_short, strict=False):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4)


def test_a_long_conversation_becomes_several_examples(base: Path) -> None:
    layout = Layout(FileTokenizer(base / "tokenizer.json"), Budget(max_tokens=256, user_tokens=64))
    (record,) = records(1, turns=30)
    examples = list(encode(layout, record))
    assert len(examples) > 1
    assert [number for _, numbers in examples for number in numbers] == list(range(30))
    assert all(example.length <= 256 for example, _ in examples)


def test_identifiers_are_dealt_anew_for_each_record(base: Path) -> None:
    tokenizer = FileTokenizer(base / "tokenizer.json")
    layout = Layout(tokenizer, Budget(), choose_identifiers(tokenizer, 20))
    (record,) = records(1)
    draws = {
        tuple(example.identifiers)
        for seed in range(5)
        for example, _ in encode(layout, record, redraw=random.Random(seed))
    }
    assert len(draws) == 5


def test_several_right_routes_share_the_target(base: Path) -> None:
    tokenizer = FileTokenizer(base / "tokenizer.json")
    (record,) = records(1, turns=1)
    both = [route.name for route in record.routes[:2]]
    record.decisions[0].expected = both
    ((example, _),) = encode(Layout(tokenizer, Budget()), record)
    assert example.targets == [[0.5, 0.5, 0.0, 0.0]]
    small = record.model_copy(update={"routes": [Route(name="x", description="y")]})
    small.decisions[0].expected = []
    ((other, _),) = encode(Layout(tokenizer, Budget()), small)
    batch = collate([example, other], pad=2)
    assert batch["targets"].tolist() == [[0.5, 0.5, 0, 0], [0, 1, 0, 0]]
    scores = torch.zeros(2, 4).masked_fill(~batch["line_mask"], float("-inf"))
    assert float(decision_loss(scores, batch)) == pytest.approx((np.log(4) + np.log(2)) / 2)


@pytest.mark.parametrize(
    ("text", "overrides", "complaint"),
    [
        ("name: x", {}, "base_model"),
        ("- a", {}, "must be a mapping"),
        ("{", {}, "cannot read"),
        (None, {"learning_rat": 1}, "learning_rat"),
        (None, {"lora.rank": 4}, r"lora\.rank"),
        (None, {"budget.max_tokens": 3}, r"budget\.max_tokens"),
    ],
)
def test_bad_recipes_name_the_field(
    tmp_path: Path, text: str | None, overrides: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "r.yaml"
    released = ROOT / "configs" / "recipes" / "nano-lora.yaml"
    path.write_text(released.read_text() if text is None else text)
    with pytest.raises(RecipeError, match=complaint):
        load_recipe(path, overrides)


def test_bad_data_is_refused_before_training(base: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(RecipeError, match="no decisions"):
        train(recipe(), base, "test", empty, tmp_path / "run")
    empty.write_text('{"id": "1"}\n')
    with pytest.raises(InvalidRecord, match=r"empty\.jsonl:1"):
        train(recipe(), base, "test", empty, tmp_path / "run")
    assert not (tmp_path / "run").exists()
