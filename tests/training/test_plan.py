"""Plans: counts of parameters, memory by part, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.plan.hardware import gpu_named, peak_flops_of
from training.plan.memory import GIB, Pass, estimate
from training.plan.plan import Plan, check, largest_pass, plan, refuse_what_cannot_fit
from training.plan.setup import Sharding, Training, read_sharding, read_training
from training.plan.shapes import KNOWN, Shape, shape_of
from training.plan.workload import given_workload, read_workload
from training.recipe import RecipeError, TrainRecipe

ROOT = Path(__file__).resolve().parents[2]
NANO, DENSE, MIXTURE = KNOWN.values()
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ZERO: dict[str, dict[str, Any]] = {
    "zero2": {"stage": 2},
    "zero3": {"stage": 3},
    "zero2-offload": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    "zero3-offload": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu"},
        "offload_param": {"device": "cpu"},
    },
}


@pytest.fixture(scope="module")
def deepspeed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deepspeed")
    for name, zero in ZERO.items():
        zero = {"reduce_bucket_size": 200_000_000, **zero}
        (folder / f"{name}.json").write_text(json.dumps({"zero_optimization": zero}))
    return folder


def recipe(shape: Shape = MIXTURE, **updates: Any) -> TrainRecipe:
    values: dict[str, Any] = {
        "name": "planned",
        "base_model": shape.name,
        "architecture": "qwen3_moe" if shape.experts else "qwen3" if shape.qk_norm else "llama",
        "dtype": "bfloat16",
        "attention": "flash_attention_2",
        "packing": True,
        "gradient_checkpointing": True,
        "deepspeed": "zero3",
        "processes": 8,
        "accumulation": 8,
        "batch_conversations": 4,
        "epochs": 1,
        "learning_rate": 1e-5,
    }
    return TrainRecipe.model_validate(values | updates)


def planned(chosen: TrainRecipe, folder: Path, gpu: str = "h100", **options: Any) -> Plan:
    return plan(chosen, gpu_named(gpu), deepspeed=folder, **options)


# Shapes


def test_counts_are_those_of_the_models() -> None:
    assert MIXTURE.total == 30_532_122_624  # as its model card says
    assert MIXTURE.active == pytest.approx(3.04e9, rel=1e-3)
    assert DENSE.total == DENSE.embeddings + DENSE.hidden + 36 * DENSE.layer
    assert DENSE.total == pytest.approx(4.02e9, rel=1e-3)
    assert DENSE.active == pytest.approx(4.02e9, rel=1e-3)
    assert NANO.total == 134_515_008
    assert MIXTURE.lora(16, ATTENTION) == pytest.approx(13.4e6, rel=3e-3)
    assert MIXTURE.lora_experts(16) == pytest.approx(629e6, rel=1e-3)
    assert 2 * MIXTURE.moe_block / GIB == pytest.approx(1.13, abs=0.005)
    assert MIXTURE.expert_total + 48 * MIXTURE.hidden * 128 == 48 * MIXTURE.moe_block


def test_sixteen_bytes_a_parameter() -> None:
    for shape, gpus, expected in ((MIXTURE, 8, 56.9), (MIXTURE, 16, 28.4), (DENSE, 8, 7.5)):
        memory = estimate(Training(shape, shape.total, 0), Sharding(gpus, 3), Pass(1, 1))
        states = sum(memory.gpu[name] for name in ("weights", "gradients", "optimiser states"))
        assert states / GIB == pytest.approx(expected, abs=0.05)


def test_a_folder_says_its_shape(tmp_path: Path) -> None:
    config = {
        "model_type": "qwen3_moe",
        "num_hidden_layers": 48,
        "hidden_size": 2048,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "vocab_size": 151_936,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert replace(shape_of(str(tmp_path)), name=MIXTURE.name) == MIXTURE
    for wrong in ({"model_type": "gpt2"}, {"mlp_only_layers": [0]}, {"hidden_size": None}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(RecipeError, match="base_model"):
            shape_of(str(tmp_path))
    with pytest.raises(RecipeError, match="shape of no/model is not known"):
        shape_of("no/model")


def test_what_a_recipe_trains() -> None:
    pointer = 2 * (MIXTURE.hidden + 1) * 256 + 1
    full = read_training(recipe(), MIXTURE)
    assert full.trained == MIXTURE.total - MIXTURE.embeddings + pointer
    assert read_training(recipe(train_embeddings=True), MIXTURE).frozen == 0
    attention = read_training(recipe(lora={"targets": ATTENTION}), MIXTURE)
    assert attention.trained == MIXTURE.lora(16, ATTENTION) + pointer
    both = read_training(recipe(lora={"targets": ATTENTION, "experts": True}), MIXTURE)
    assert both.trained - attention.trained == MIXTURE.lora_experts(16)
    assert both.folded_experts
    with pytest.raises(RecipeError, match="no linear layer up_proj"):
        read_training(recipe(lora={"targets": ["up_proj"]}), MIXTURE)
    kept = recipe(NANO, layers=18, deepspeed=None)
    assert planned(kept, ROOT).shape.total == NANO.total - 12 * NANO.layer
    with pytest.raises(RecipeError, match="layers"):
        planned(recipe(NANO, layers=31, deepspeed=None), ROOT)


# Memory


def test_stages_cut_up_more_and_more(deepspeed: Path) -> None:
    def parts(name: str | None) -> dict[str, float]:
        return planned(recipe(DENSE, deepspeed=name), deepspeed).memory.gpu

    plain, two, three = parts(None), parts("zero2"), parts("zero3")
    trained = read_training(recipe(DENSE), DENSE).trained
    assert plain["gradients"] == pytest.approx(2 * trained)
    assert two["gradients"] == pytest.approx(2 * trained / 8)
    assert two["weights"] == plain["weights"] == pytest.approx(8 * three["weights"])
    assert two["optimiser states"] == three["optimiser states"] == pytest.approx(12 * trained / 8)
    assert three["gathered layers"] == 2e9  # stage3_max_live_parameters
    assert two["gathered layers"] == 0
    offloaded = planned(recipe(DENSE, deepspeed="zero3-offload"), deepspeed).memory
    for name in ("weights", "gradients", "optimiser states"):
        assert offloaded.gpu[name] == 0
    assert offloaded.host["offloaded"] > 16 * trained
    half = planned(recipe(DENSE, deepspeed="zero2-offload"), deepspeed).memory
    assert half.gpu["weights"] == two["weights"]
    assert half.gpu["optimiser states"] == 0


def test_a_sum_is_the_sum_of_its_parts(deepspeed: Path) -> None:
    for chosen in (recipe(), recipe(lora={"targets": ATTENTION, "experts": True})):
        found = planned(chosen, deepspeed)
        assert found.memory.total == pytest.approx(sum(found.memory.gpu.values()))
        shown = found.to_json()
        assert sum(shown["memory_gib"].values()) == pytest.approx(
            shown["memory_total_gib"], abs=0.02
        )
        assert found.margin == pytest.approx(1 - found.memory.total / (79 * GIB))


def test_activations_follow_tokens_and_checkpointing() -> None:
    def passing(**updates: Any) -> dict[str, float]:
        chosen = recipe(DENSE, **updates)
        training = read_training(chosen, DENSE)
        return estimate(training, Sharding(8, 3), largest_pass(chosen)).gpu

    once, twice = passing(), passing(batch_conversations=8)
    assert twice["hidden states"] == 2 * once["hidden states"]
    assert twice["activations of layers"] == pytest.approx(2 * once["activations of layers"])
    kept = passing(gradient_checkpointing=False)["activations of layers"]
    assert kept == pytest.approx(once["activations of layers"] * (36 + 0.5) / 1.5)
    assert once["logits"] == 0  # the pointer reads states, not logits
    assert passing(read_out="identifier")["logits"] > 0
    assert once["attention mask"] == 0
    assert (
        passing(attention="sdpa")["attention mask"]
        > passing(attention="sdpa", packing=False)["attention mask"]
    )
    assert passing(attention="eager")["activations of layers"] > 2 * kept / 36
    assert passing(pointer_lines="mean")["means over lines"] > 0


def test_the_data_bounds_a_pass() -> None:
    chosen = recipe(DENSE, budget={"max_tokens": 2048}, packing=False)
    assert largest_pass(chosen) == Pass(4 * 2048, 2048)
    assert largest_pass(chosen, longest=500) == Pass(2000, 500)
    assert largest_pass(chosen, longest=9000) == Pass(4 * 2048, 2048)
    assert largest_pass(chosen, tokens=1000) == Pass(1000, 1000)
    with pytest.raises(RecipeError, match="tokens-per-pass"):
        largest_pass(chosen, tokens=0)


def test_experts_with_lora_are_folded_layer_by_layer(deepspeed: Path) -> None:
    experts = {"targets": ATTENTION, "experts": True}
    name = "experts with LoRA folded in"
    found = planned(recipe(lora=experts), deepspeed)
    assert found.memory.gpu[name] == pytest.approx(2 * 2 * MIXTURE.moe_block)
    kept = planned(recipe(lora=experts, gradient_checkpointing=False), deepspeed)
    assert kept.memory.gpu[name] > 50 * GIB
    assert any("copy of every layer" in note for note in kept.notes)


def test_host_holds_the_checkpoint_once_or_for_each_process(deepspeed: Path) -> None:
    once = planned(recipe(), deepspeed, gpus=16).memory.host
    assert once["checkpoint"] / 1e9 == pytest.approx(61, abs=0.5)
    each = planned(recipe(deepspeed="zero2", lora={"targets": ATTENTION}), deepspeed)
    assert each.memory.host["checkpoint"] == pytest.approx(8 * once["checkpoint"])
    assert any("for itself" in note for note in each.notes)


# What is refused


def test_the_house_plans_fit_and_their_neighbours_do_not(deepspeed: Path) -> None:
    lora = recipe(deepspeed="zero2", lora={"targets": ATTENTION}, batch_conversations=2)
    check(planned(lora, deepspeed))
    check(planned(recipe(), deepspeed, gpus=16))
    check(planned(recipe(deepspeed="zero3-offload"), deepspeed, gpus=8))
    check(planned(recipe(DENSE, deepspeed="zero2"), deepspeed))
    with pytest.raises(RecipeError, match=r"planned needs \d+ GiB a GPU of 79; instead: .*zero3"):
        check(planned(recipe(deepspeed="zero2"), deepspeed))
    with pytest.raises(
        RecipeError, match=r"instead: batch_conversations=16 .*zero3-offload.*16 GPUs"
    ):
        check(planned(recipe(batch_conversations=32), deepspeed))


def test_two_changes_are_named_where_none_alone_helps(deepspeed: Path) -> None:
    found = planned(
        recipe(gradient_checkpointing=False, batch_conversations=16), deepspeed, "a100-40", gpus=2
    )
    assert not found.fits
    assert found.instead
    assert all("with gradient_checkpointing=true" in change for change in found.instead)


def test_the_launch_is_refused(deepspeed: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = 80 * 10**9
    chosen = recipe(DENSE, deepspeed=None, processes=1, accumulation=1)
    refuse_what_cannot_fit(recipe(), 16, memory, deepspeed=deepspeed)
    with pytest.raises(RecipeError, match=r"needs .* GiB a GPU of 75"):
        refuse_what_cannot_fit(recipe(DENSE, dtype="float32"), 1, memory, deepspeed=deepspeed)
    long = recipe(DENSE, batch_conversations=64, budget={"max_tokens": 8192})
    with pytest.raises(RecipeError):
        refuse_what_cannot_fit(long, 8, memory, deepspeed=deepspeed)
    refuse_what_cannot_fit(long, 8, memory, longest=500, deepspeed=deepspeed)
    unknown = chosen.model_copy(update={"base_model": "some/model"})
    refuse_what_cannot_fit(unknown, 1, memory, deepspeed=deepspeed)
    assert "memory is not checked" in caplog.text
    tiny = recipe(tiny={}, deepspeed=None, dtype="float32")
    refuse_what_cannot_fit(tiny, 2, memory, deepspeed=deepspeed)


def test_mistakes_are_named(deepspeed: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="gpu: 'h1000' is not known; one of h100"):
        gpu_named("h1000")
    with pytest.raises(RecipeError, match="gpus"):
        read_sharding(recipe(), 0, deepspeed)
    with pytest.raises(RecipeError, match="deepspeed: cannot read"):
        read_sharding(recipe(deepspeed="zero9"), 8, deepspeed)
    with pytest.raises(RecipeError, match="data: cannot read"):
        read_workload(tmp_path)
    with pytest.raises(RecipeError, match="conversations"):
        given_workload(conversations=0)


def test_the_house_configurations_are_read() -> None:
    folder = ROOT / "configs" / "deepspeed"
    found = {name: read_sharding(recipe(deepspeed=name), 8, folder) for name in ZERO}
    assert [found[name].stage for name in ZERO] == [2, 3, 2, 3]
    assert [found[name].offload_optimizer for name in ZERO] == [False, False, True, True]
    assert [found[name].offload_parameters for name in ZERO] == [False, False, False, True]


@pytest.mark.parametrize(
    ("device", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("AMD Instinct MI300X", 1307),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_peaks_by_device_name(device: str, tflops: float | None) -> None:
    assert peak_flops_of(device) == (tflops * 1e12 if tflops else None)
