"""Plans against runs that others have published, and what a user sees of a plan.

Sources: prime-rl's benchmarks (benchmarks/results/BENCHMARKS.md, January 2026; peaks are what
PyTorch reserved), and NVIDIA's "Accelerating Transformers Fine-Tuning with NeMo AutoModel" (June
2026) with its blog_experiments (peaks are what was allocated).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from training.plan.advice import PLANNED_V5, TRANSFORMERS_V5
from training.plan.hardware import GPUS
from training.plan.memory import GIB, Pass, estimate
from training.plan.plan import plan
from training.plan.setup import Sharding, Training
from training.plan.shapes import KNOWN, Shape
from training.plan.speed import RATES, Load, predict
from training.plan.workload import Workload, given_workload, read_workload
from training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
_, DENSE, MIXTURE = KNOWN.values()
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
PRIME_EXPERTS = 48 * 128 * 3 * 16 * (2048 + 768)
"""prime-rl's LoRA adapts gate, up and down of each expert apart; its r16 run includes them."""
CLOSE = 0.30


@dataclass(frozen=True)
class Published:
    """One run; tokens a second of one GPU, None where only its memory is compared."""

    name: str
    training: Training
    gpu: str
    gpus: int
    tokens: int
    peak_gib: float
    rate: float | None = None
    logits: bool = False
    """Whether the logits of all tokens are held at once; all runs compute them."""
    off: str = ""
    """Which of rate and memory is known to be further off than `CLOSE`, and why."""


def full(shape: Shape) -> Training:
    """float32 weights, cut up, used in bfloat16; AdamW with one temporary."""
    return Training(shape, shape.total, 0, step_bytes=4)


def lora(shape: Shape, targets: tuple[str, ...], experts: int = 0) -> Training:
    adapters = shape.lora(16, targets)
    met = experts * shape.experts_active // max(shape.experts, 1)
    # These runs seem to keep the frozen base in float32 too: on one GPU the 4B takes 13 GiB more
    # than on eight, seven eighths of 15.
    fp32: dict[str, Any] = {"frozen_bytes": 4, "weight_bytes": 4, "gradient_bytes": 4}
    return Training(
        shape,
        adapters + experts,
        shape.total,
        adapters + met,
        lora=True,
        state_bytes=8,
        step_bytes=4,
        **fp32,
    )


BF16 = replace(full(MIXTURE), state_bytes=4, step_bytes=2, checkpointing=False)
"""The scripts of NVIDIA's comparison: moments in bfloat16, no master weights, no recomputation."""
ROWS = (
    Published("4B full", full(DENSE), "h100", 8, 16_384, 54.6, 6215, logits=True),
    Published("30B LoRA", lora(MIXTURE, ATTENTION, PRIME_EXPERTS), "h100", 8, 16_384, 31.6, 4137),
    Published("30B full", full(MIXTURE), "h200", 8, 16_384, 106.4, 4379, logits=True),
    Published(
        "30B full, NeMo AutoModel",
        *(BF16, "h100", 8, 4096, 48.1, 11_340, True),
        off="rate and memory: expert parallelism moves tokens where ZeRO-3 moves all experts, and "
        "TransformerEngine's kernels keep less for backward; this trainer has neither",
    ),
    Published(
        "30B full, transformers 5",
        *(BF16, "h100", 8, 4096, 68.2, TRANSFORMERS_V5, True),
        off="rate: the assumed share of the peak is that of prime-rl's experts, and transformers' "
        "own reach less in passes of 4k tokens",
    ),
    Published("4B LoRA", lora(DENSE, ATTENTION + MLP), "h100", 8, 16_384, 10.3, 6090),
    Published("4B LoRA, one GPU", lora(DENSE, ATTENTION + MLP), "h100", 1, 16_384, 23.3, 6230),
    # Memory alone. Rates of its reinforcement learning with all weights are not predicted (764
    # tokens/s a GPU for the 30B, where this arithmetic says 3,824), and at 64k tokens, which no
    # routing recipe has, attention ran faster than assumed: LoRA reached 46 to 75 % more than that.
    Published("4B full, RL", full(DENSE), "h100", 8, 16_384, 17.1),
    Published("4B full, RL, 64k", full(DENSE), "h100", 8, 65_536, 36.1),
    Published("4B LoRA, 64k", lora(DENSE, ATTENTION + MLP), "h100", 8, 65_536, 28.8),
    Published("30B full, RL", full(MIXTURE), "h100", 8, 16_384, 74.6),
    Published("30B full, RL, 64k", full(MIXTURE), "h200", 8, 65_536, 105.4),
    Published("30B LoRA, 64k", lora(MIXTURE, ATTENTION, PRIME_EXPERTS), "h100", 8, 65_536, 63.7),
)


def errors(row: Published) -> dict[str, float]:
    """Relative errors of rate and memory."""
    shape = row.training.shape
    # FSDP holds two layers and the embeddings at a time.
    live = 2 * shape.layer + shape.embeddings
    sharding = Sharding(row.gpus, 3, live=live) if row.gpus > 1 else Sharding(1)
    size = Pass(row.tokens, row.tokens, row.tokens if row.logits else 0)
    found = {"memory": estimate(row.training, sharding, size).torch_total / GIB / row.peak_gib - 1}
    if row.rate is not None:
        load = Load(row.tokens, row.tokens, row.tokens, 1, logit_share=1.0)
        speed = predict(row.training, sharding, GPUS[row.gpu], load)
        found["rate"] = speed.tokens_per_second / row.rate - 1
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_published_runs(row: Published) -> None:
    known = row.off.partition(":")[0].split(" and ") if row.off else []
    for what, error in errors(row).items():
        # One that is said to be off must be: should it come close, its excuse has to go.
        assert (abs(error) > CLOSE) == (what in known), f"{what} is {error:+.0%} off"


def test_the_note_on_mixtures_says_what_is_predicted() -> None:
    row = next(row for row in ROWS if row.name == "30B full, transformers 5")
    assert TRANSFORMERS_V5 * (1 + errors(row)["rate"]) == pytest.approx(PLANNED_V5, abs=1)


def test_rates_are_the_published_ones() -> None:
    assert RATES["dense, all weights"].share == 0.266
    assert RATES["mixture, all weights"].share == 0.166
    assert RATES["mixture, LoRA"].share == 0.153


# Speed


def test_what_costs_time() -> None:
    base = full(DENSE)
    load = Load(4096, 4096, 512, 1)

    def rate(training: Training = base, at: Load = load, **sharding: Any) -> float:
        cut = Sharding(**{"gpus": 8, "stage": 3, **sharding})
        return predict(training, cut, GPUS["h100"], at).tokens_per_second

    assert rate(gpus=16) < rate() < rate(stage=2) < rate(gpus=1)
    assert rate(offload_optimizer=True) < rate()
    assert rate(offload_parameters=True) < rate()
    assert rate(replace(base, attention="sdpa")) < rate()
    assert rate(replace(base, checkpointing=False)) > rate()
    assert rate(at=replace(load, logit_share=1.0)) < rate()
    assert rate(at=replace(load, passes=8), offload_optimizer=True) > rate(offload_optimizer=True)
    folded = replace(lora(MIXTURE, ATTENTION), folded_experts=True)
    assert rate(folded) < rate(replace(folded, folded_experts=False))


def test_a_given_share_of_the_peak_is_reached() -> None:
    load = Load(4096, 4096, 512, 1)
    for checkpointing in (True, False):
        training = replace(full(DENSE), checkpointing=checkpointing)
        speed = predict(training, Sharding(1), GPUS["h100"], load, mfu=0.4)
        assert speed.mfu == pytest.approx(0.4)
        assert speed.tokens_per_second == pytest.approx(0.4 * 989e12 / speed.model_flops)


def test_workloads(tmp_path: Path) -> None:
    bins = {"100": 1, "200": 3}
    part = {"conversations": 8, "decisions": 20, "tokens_a_conversation": bins}
    manifest = tmp_path / "dataset.json"
    manifest.write_text(json.dumps({"parts": {"train": part}}))
    assert read_workload(tmp_path) == Workload(8, 20, 1600, 250)
    manifest.write_text(json.dumps({"parts": {"train": {**part, "tokens_a_conversation": {}}}}))
    counted = read_workload(tmp_path)
    assert counted.tokens == 8 * 370
    assert "counts no tokens" in (counted.assumed or "")
    assert given_workload() is None
    assert given_workload(decisions=4600) == replace(
        given_workload(conversations=1000) or counted,
        assumed="tokens and conversations at 4.6 decisions and 370 tokens a conversation",
    )
    exact = given_workload(10, 20, 3000)
    assert exact == Workload(10, 20, 3000)


def test_hours_and_cost_follow_from_steps() -> None:
    chosen = load_recipe(ROOT / "configs" / "recipes" / "qwen3-4b-full.yaml", {"epochs": 2})
    work = Workload(64_000, 300_000, 30_000_000)
    found = plan(chosen, GPUS["h100"], 8, workload=work, deepspeed=ROOT / "configs" / "deepspeed")
    assert found.conversations_a_step == chosen.step_conversations
    assert found.steps == 2 * 64_000 / chosen.step_conversations
    assert found.hours == pytest.approx(found.steps * found.speed.step / 3600)
    assert found.cost == pytest.approx(found.hours * 8 * 3.00)
    assert found.decisions_per_second == pytest.approx(found.tokens_per_second / 100)


# The command


def run(*arguments: str) -> Any:
    from scripts.cli import app

    return CliRunner().invoke(app, ["plan", *arguments])


def test_the_command_prints_a_table() -> None:
    result = run("qwen3-30b-a3b-full", "--gpus", "16", "--conversations", "1000000")
    assert result.exit_code == 0, result.output
    for text in (
        "optimiser states",
        "a GPU",
        "tokens/s",
        "decisions/s",
        "hours",
        "cost",
        "Assumed",
    ):
        assert text in result.output


def test_the_command_prints_json() -> None:
    result = run("qwen3-4b-lora", "--gpus", "1", "--gpu", "rtx4090", "--price", "2", "--json")
    shown = json.loads(result.stdout)
    assert shown["gpu"]["price"] == 2
    assert result.exit_code == (0 if shown["fits"] else 1)
    assert shown["memory_total_gib"] == pytest.approx(sum(shown["memory_gib"].values()), abs=0.02)


def test_the_command_says_what_would_fit() -> None:
    result = run("qwen3-30b-a3b-full", "--gpus", "4")
    assert result.exit_code == 1
    assert "does not fit" in result.output
    assert "would fit: " in result.output


def test_an_unknown_gpu_is_one_line() -> None:
    command = [sys.executable, "-m", "scripts.cli", "plan", "nano-full", "--gpu", "h1000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("pointsman: gpu: 'h1000' is not known")
    assert len(done.stderr.splitlines()) == 1


def test_planning_is_arithmetic_alone() -> None:
    code = (
        "import sys, training.plan.plan, training.plan.table; "
        "print([m for m in ('torch', 'transformers', 'data_synthesis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
