"""How a run's processes start. Imports no torch: what it starts will."""

from __future__ import annotations

import os
import sys

from training.recipe import TrainRecipe


def start_processes(recipe: TrainRecipe) -> None:
    """Go on as `processes` processes of this very command, unless a launcher started it already.

    Must be called before torch computes anything; does not return where it starts processes.
    """
    if "LOCAL_RANK" in os.environ or (recipe.processes == 1 and recipe.deepspeed is None):
        return
    os.environ["OMP_NUM_THREADS"] = str(recipe.threads)
    torchrun = ["-m", "torch.distributed.run", "--standalone"]
    torchrun += [f"--nproc_per_node={recipe.processes}"]
    command = [sys.executable, *torchrun, "-m", "scripts.cli", *sys.argv[1:]]
    os.execv(sys.executable, command)
