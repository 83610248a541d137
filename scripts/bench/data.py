"""Speed and memory of making routing data, by size.

    python -m scripts.bench.data [--sizes 10000 100000 1000000] [--workers 2]

Method: the recipe `nano-authored` (the authored source with every operator, two to sixteen routes,
sharded and compressed, duplicates dropped, statistics and card made) is run to about as many
decisions as each size says, in a process of its own that goes from reading the library to the
finished manifest. Time is that process's wall time. Memory is the largest sum of the proportional
set sizes (PSS, so that pages shared by forked processes count once) of the process and its workers,
sampled every half second, once in the first third of the run and once over the whole run: flat
memory means that the two, and the sizes, agree.

The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.places import CONFIGS

DECISIONS_A_CONVERSATION = 3.9


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and weigh the making of routing data.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    speed: dict[str, int] = {}
    memory: dict[str, float] = {}
    for size in arguments.sizes:
        made, seconds, early, peak = _run(size, arguments.workers)
        speed[str(size)] = round(made / seconds * 60)
        memory[str(size)] = round(peak, 1)
        print(
            f"{made:>9,} decisions in {seconds:7.1f} s: {speed[str(size)]:>8,} a minute, "
            f"at most {peak:.0f} MB ({early:.0f} MB in the first third)",
            flush=True,
        )
    figures = {
        "decisions_per_minute": speed,
        "rss_mb": memory,
        "workers": arguments.workers,
        "recipe": "nano-authored",
    }
    print(json.dumps(figures))


def _run(size: int, workers: int) -> tuple[int, float, float, float]:
    """Decisions made, seconds, and the largest memory in MB, early and in all."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "nano-authored.yaml"
        text = (CONFIGS / "data" / "nano-authored.yaml").read_text()
        drawn = round(size / DECISIONS_A_CONVERSATION)
        lines = [
            f"conversations: {drawn}" if line.startswith("conversations:") else line
            for line in text.splitlines()
        ]
        recipe.write_text("\n".join(lines) + "\n")
        output = Path(folder) / "out"
        command = [sys.executable, "-m", "scripts.cli", "data", "make", str(recipe)]
        command += ["--output", str(output), "--workers", str(workers)]
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples: list[float] = []
        while process.poll() is None:
            samples.append(_memory(process.pid))
            time.sleep(0.5)
        seconds = time.monotonic() - start
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
        manifest = json.loads((output / "dataset.json").read_text())
        made = sum(part["decisions"] for part in manifest["parts"].values())
        early = max(samples[: max(1, len(samples) // 3)])
        return made, seconds, early, max(samples)


def _memory(pid: int) -> float:
    """PSS of a process and its children, in MB."""
    total = 0.0
    for each in [pid, *_children(pid)]:
        try:
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        total += next(int(x.split()[1]) for x in rollup.splitlines() if x.startswith("Pss:")) / 1024
    return total


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in own:
            found += [child, *_children(child)]
    return found


if __name__ == "__main__":
    main()
