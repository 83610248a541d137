"""Several processes for real: ZeRO-2 and ZeRO-3, dense and mixture, LoRA and full, on a CPU."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from routing_data import records
from safetensors.torch import load_file
from twin import train_twin, write_data

from routing.manifest import load_manifest
from scripts.cli import base_of_recipe
from training.checkpoint import data_sha256
from training.distributed import last_state, remember
from training.recipe import RecipeError, load_recipe
from training.scoring import ModelDecider
from training.train import train

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "configs" / "recipes"
TINY = RECIPES / "with" / "tiny.yaml"
LARGE = ("4b-lora", "4b-full", "30b-a3b-lora", "30b-a3b-lora-experts", "30b-a3b-full")

pytestmark = [
    pytest.mark.timeout(280),
    pytest.mark.skipif(shutil.which("g++") is None, reason="DeepSpeed builds an extension by g++"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data")


def trained(recipe: str, data: Path, output: Path, *values: str) -> list[float]:
    train_twin(recipe, data, output, *values)
    return losses(output)


def alone(name: str, data: Path, output: Path, **values: Any) -> list[float]:
    """The same recipe in this process, without DeepSpeed."""
    single = {"deepspeed": None, "processes": 1, **values}
    recipe = load_recipe(RECIPES / f"{name}.yaml", single, [TINY])
    base, revision = base_of_recipe(recipe, output)
    assert train(recipe, base, revision, data / "train", output) is not None
    return losses(output)


def losses(output: Path) -> list[float]:
    states = (output / "steps").glob("checkpoint-*/trainer_state.json")
    last = max(states, key=lambda path: int(path.parent.name.split("-")[1]))
    return [e["loss"] for e in json.loads(last.read_text())["log_history"] if "loss" in e]


def decides(output: Path) -> None:
    """The export of a run loads, and decides."""
    checkpoint = output / "checkpoint"
    base = output / "base" if load_manifest(checkpoint).weights == "adapter" else None
    decider = ModelDecider.from_checkpoint(checkpoint, base)
    assert [len(each) for each in decider.decide_all(records(2))] == [3, 3]


@pytest.mark.parametrize("name", LARGE)
def test_every_large_recipe_has_a_tiny_twin(name: str) -> None:
    plain = load_recipe(RECIPES / f"qwen3-{name}.yaml")
    twin = load_recipe(RECIPES / f"qwen3-{name}.yaml", layers=[TINY])
    assert twin.tiny is not None
    assert (plain.tiny, plain.dtype) == (None, "bfloat16")
    same = ("architecture", "lora", "deepspeed", "read_out", "packing", "gradient_checkpointing")
    assert all(getattr(twin, field) == getattr(plain, field) for field in same)
    assert plain.revision is not None
    assert len(plain.revision) == 40


def test_experts_under_zero3_learn_as_one_process_does_and_decide(
    experts_twin: Path, data: Path, tmp_path: Path
) -> None:
    two = losses(experts_twin)
    one = alone("qwen3-30b-a3b-lora-experts", data, tmp_path / "one")
    assert two == pytest.approx(one, rel=2e-3)
    assert two[-1] != two[0]
    decides(experts_twin)
    adapter = load_file(experts_twin / "checkpoint" / "adapter_model.safetensors")
    assert any(".experts." in name for name in adapter)
    changed = [name for name, value in adapter.items() if "lora_B" in name and value.any()]
    assert changed, "an adapter whose B matrices are zero changes nothing"


def test_full_fine_tuning_under_zero3_saves_every_weight(data: Path, tmp_path: Path) -> None:
    two = trained("qwen3-30b-a3b-full", data, tmp_path / "two", "learning_rate=1e-3")
    one = alone("qwen3-30b-a3b-full", data, tmp_path / "one", learning_rate=1e-3)
    assert two == pytest.approx(one, rel=2e-3)
    decides(tmp_path / "two")
    files = [tmp_path / run / "checkpoint" / "model.safetensors" for run in ("two", "one")]
    left, right = (load_file(file) for file in files)
    base = load_file(tmp_path / "two" / "base" / "model.safetensors")
    assert left.keys() == right.keys() == base.keys()
    assert any(not left[name].equal(base[name]) for name in base)
    config = json.loads((tmp_path / "two" / "checkpoint" / "config.json").read_text())
    assert config["use_cache"] is True
    assert config.get("output_router_logits") in (None, False)


def test_zero2_resumes_as_if_it_had_not_been_cut_off(data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = trained("qwen3-4b-lora", data, whole)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "steps" / "checkpoint-4")
    shutil.rmtree(cut / "checkpoint")
    assert trained("qwen3-4b-lora", data, cut) == expected
    same = [(folder / "checkpoint" / "adapter_model.safetensors") for folder in (whole, cut)]
    left, right = (load_file(file) for file in same)
    assert all(left[name].equal(right[name]) for name in left)

    # Another number of processes cannot read the sharded state; another recipe is another run.
    recipe = load_recipe(RECIPES / "qwen3-4b-lora.yaml", layers=[TINY])
    sha = data_sha256(data / "train")
    remember(recipe, sha, cut, rank=0)
    for values, complaint in (
        ({"processes": 1}, "begun with 2 processes and cannot go on with 1"),
        ({"learning_rate": 0.5}, "begun with learning_rate = 0.0001, not 0.5"),
    ):
        with pytest.raises(RecipeError, match=complaint):
            remember(recipe.model_copy(update=values), sha, cut, rank=0)
    with pytest.raises(RecipeError, match="other data"):
        remember(recipe, "0", cut, rank=0)
    remember(recipe.model_copy(update={"save_every": 1}), sha, cut, rank=0)
    decides(cut)


def test_a_state_in_pieces_is_passed_over(tmp_path: Path) -> None:
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    found = last_state(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-10"
    assert last_state(tmp_path / "nothing") is None
