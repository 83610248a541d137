"""Processes of a run: DeepSpeed's set-up, and what a resumed run must match."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import torch

from training.recipe import RecipeError, TrainRecipe

RUN_FILE = "run.json"
"""What a run was begun with, beside its states."""
STALE_SECONDS = 600
"""A build takes half a minute."""
_FREE = {"save_every", "log_every", "tracking", "threads", "gradient_checkpointing"}
"""Values that a resumed run may change."""


def prepare(recipe: TrainRecipe) -> int:
    """Check the processes and set up their group; returns this process's rank.

    Raises RecipeError where torchrun started another number of processes than the recipe says.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != recipe.processes:
        raise RecipeError(f"processes is {recipe.processes}, but {started} were started")
    if recipe.deepspeed is not None:
        # accelerate reads these when its state is made; use_cpu would switch DeepSpeed off.
        os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
        if not torch.cuda.is_available():
            from accelerate import PartialState

            os.environ["DS_ACCELERATOR"] = "cpu"
            _remove_stale_locks()
            PartialState(backend="gloo")
    return int(os.environ.get("RANK", "0"))


def _remove_stale_locks() -> None:
    """Forget builds of DeepSpeed's extensions that were killed: others would wait for ever."""
    root = os.environ.get("TORCH_EXTENSIONS_DIR")
    folder = Path(root) if root else Path.home() / ".cache" / "torch_extensions"
    for lock in folder.glob("**/deepspeed_*/lock"):
        with contextlib.suppress(OSError):  # its owner may finish meanwhile
            if time.time() - lock.stat().st_mtime > STALE_SECONDS:
                lock.unlink()


def deepspeed_arguments(recipe: TrainRecipe, folder: Path) -> dict[str, Any]:
    """What SFTConfig takes for the recipe's DeepSpeed configuration, if it names one."""
    on_cpu = not torch.cuda.is_available()
    if recipe.deepspeed is None:
        backend = "gloo" if recipe.processes > 1 and on_cpu else None
        return {"use_cpu": on_cpu, "ddp_backend": backend, "ddp_find_unused_parameters": False}
    path = Path(recipe.deepspeed)
    path = path if path.suffix == ".json" else folder / f"{recipe.deepspeed}.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"deepspeed: cannot read {path}: {error}") from None
    zero = config.setdefault("zero_optimization", {})
    if recipe.architecture == "qwen3_moe" and zero.get("stage") == 3:
        # Which experts a token takes differs from process to process: gathered one by one, they
        # would wait for each other for ever (DeepSpeed #7461).
        block = "transformers.models.qwen3_moe.modeling_qwen3_moe.Qwen3MoeSparseMoeBlock"
        zero["leaf_module"] = {"classes": [block]}
    if on_cpu:
        zero["overlap_comm"] = False  # there are no streams to overlap
    return {
        "use_cpu": False,
        "deepspeed": config,
        "accelerator_config": {"use_configured_state": on_cpu},
    }


def zero_stage(arguments: Any) -> int:
    """ZeRO stage of an SFTConfig; 0 without DeepSpeed."""
    config = getattr(arguments, "deepspeed", None)
    return int(config["zero_optimization"].get("stage", 0)) if isinstance(config, dict) else 0


def remember(recipe: TrainRecipe, data_sha256: str, output: Path, rank: int) -> None:
    """Note what a run begins with; raise RecipeError where a resumed one differs.

    A sharded state can only be read by as many processes as wrote it, and a run on other data or
    of another recipe is another run.
    """
    values = recipe.model_dump(mode="json", exclude=_FREE)
    now = {
        "processes": recipe.processes,
        "data_sha256": data_sha256,
        "recipe": values,
    }
    path = output / RUN_FILE
    if not path.is_file() or last_state(output / "steps") is None:
        if rank == 0:
            output.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    if before["processes"] != now["processes"]:
        raise RecipeError(
            f"{output} was begun with {before['processes']} processes and cannot go on with "
            f"{now['processes']}: start as many, or choose another --output"
        )
    if before["data_sha256"] != data_sha256:
        raise RecipeError(f"{output} was begun on other data: choose another --output")
    for name, value in values.items():
        if before["recipe"].get(name) != value:
            raise RecipeError(
                f"{output} was begun with {name} = {before['recipe'].get(name)!r}, not {value!r}: "
                "choose another --output"
            )


def last_state(steps: Path) -> Path | None:
    """The newest whole trainer state; one that a full disk or a kill left in pieces is skipped."""
    if not steps.is_dir():
        return None
    # The trainer's own state is written after all the rest.
    whole = [p for p in steps.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return max(whole, key=lambda path: int(path.name.split("-")[1]), default=None)


def leave(recipe: TrainRecipe) -> None:
    """End a process of a DeepSpeed run on a CPU, which may abort while it tidies up."""
    if recipe.deepspeed is None or torch.cuda.is_available():
        return
    _leave()


def _leave() -> NoReturn:
    import torch.distributed as group

    if group.is_initialized():
        group.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
