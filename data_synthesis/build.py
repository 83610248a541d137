"""From a recipe to a data set on disk, resumable at any moment and the same for any machine.

    OUTPUT/
        README.md, pictures/*.png         the card
        dataset.json                      the manifest, last to be written
        train/00000.jsonl.gz ...          conversation records
        validation/00000.jsonl.gz ...
        decisions/train/00000.jsonl.gz    decision records, where the recipe asks for them
        .state/                           only while it is made: what each finished shard held

Shards are made by any number of processes and put together in order by one, which drops duplicates.
A shard counts as finished once its state is written, after its files; a run that was cut off makes
the next shard again and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from data_synthesis.card import write_card
from data_synthesis.compose import Composer
from data_synthesis.files import write_bytes, write_gzip, write_json
from data_synthesis.quality.contamination import Contamination, benchmark_messages
from data_synthesis.quality.duplicates import SeenBands
from data_synthesis.quality.statistics import SAMPLE_DECISIONS, Statistics, failed_gates
from data_synthesis.recipe import DataRecipe
from data_synthesis.shards import Shard, ShardMaker
from data_synthesis.sources.base import Source
from data_synthesis.sources.opening import part
from data_synthesis.stage import Stage
from routing.errors import InvalidRecord

MANIFEST = "dataset.json"
PARTS = ("train", "validation")
Progress = Callable[[str, int, int], None]
"""Called with the part, shards finished and shards in all."""


@dataclass(frozen=True)
class Inputs:
    """What a build is made from, beside its recipe."""

    sources: list[Source]
    library: Any
    benchmarks: list[Path]
    """Files that the data must not share long runs of words with."""
    tokenizer: Path | None = None
    """A tokenizer.json, for lengths in tokens."""
    workers: int = 1


class GatesFailed(InvalidRecord):
    """The data was made, but is not what the recipe's gates ask for."""


def build(
    recipe: DataRecipe,
    inputs: Inputs,
    output: Path,
    progress: Progress = lambda part, done, total: None,
) -> dict[str, Any]:
    """Make a data set, or go on with one that was cut off; returns its manifest.

    Raises InvalidRecord where the folder holds data of another recipe, GatesFailed where the data
    is not what the gates ask for (it stays for inspection, its manifest says so).
    """
    print_of = _fingerprint(recipe, inputs)
    finished = _begin(output, print_of)
    if finished is not None:
        return finished
    manifest: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "fingerprint": print_of,
        "sources": {s.name: {"licence": s.licence, "tasks": len(s.tasks)} for s in inputs.sources},
        "benchmarks": {path.name: _sha256(path) for path in inputs.benchmarks},
        "parts": {},
        "files": {},
    }
    contamination = Contamination(recipe.contamination_gram, benchmark_messages(inputs.benchmarks))
    tokenizer = Tokenizer.from_file(str(inputs.tokenizer)) if inputs.tokenizer else None
    halves = [part(source, recipe.held_out_share, recipe.seed) for source in inputs.sources]
    weights = {name: choice.weight for name, choice in recipe.sources.items()}
    counts = (recipe.conversations, recipe.validation_conversations)
    figures: dict[str, Statistics] = {}
    for number, (name, count) in enumerate(zip(PARTS, counts, strict=True)):
        if not count:
            continue
        if not any(half[number].tasks for half in halves):
            raise InvalidRecord(
                f"held_out_share: {recipe.held_out_share} leaves no tasks for {name}",
                field="held_out_share",
            )
        stage = Stage([half[number] for half in halves], weights, inputs.library)
        maker = ShardMaker(
            name,
            recipe,
            Composer(recipe, stage),
            contamination,
            tokenizer,
            count,
            # About three decisions a conversation: enough shards for the sample.
            max(1, SAMPLE_DECISIONS // (3 * recipe.shard_conversations)),
        )
        writer = _Writer(recipe, output, name)
        writer.run(maker, inputs.workers, progress)
        manifest["parts"][name] = writer.summary(count)
        manifest["files"].update(writer.files)
        figures[name] = writer.statistics
    manifest["sha256"] = _content_hash(manifest["files"])
    failed = manifest["parts"]["train"]["failed_gates"]
    manifest["passed"] = not failed
    write_card(output, manifest, figures)
    write_json(output / MANIFEST, manifest)
    shutil.rmtree(output / ".state")
    if failed:
        raise GatesFailed(f"{output}: {'; '.join(failed)}")
    return manifest


class _Writer:
    """Puts the shards of one part together: drops duplicates, writes files, keeps the state."""

    def __init__(self, recipe: DataRecipe, output: Path, name: str) -> None:
        self._recipe = recipe
        self._output = output
        self._name = name
        self._seen = SeenBands(recipe.duplicates.slots)
        self.statistics = Statistics()
        self.files: dict[str, dict[str, Any]] = {}
        self._duplicates = self._contaminated = 0

    def run(self, maker: ShardMaker, workers: int, progress: Progress) -> None:
        total = -(-maker.total // self._recipe.shard_conversations)
        done = 0
        while done < total and self._restore(done):
            done += 1
        progress(self._name, done, total)
        for shard in _make(maker, range(done, total), workers):
            self._write(shard)
            progress(self._name, shard.index + 1, total)

    def summary(self, drawn: int) -> dict[str, Any]:
        summary = self.statistics.summary()
        failed = failed_gates(summary, drawn, self._duplicates, self._recipe.gates)
        return {
            "drawn": drawn,
            "duplicates_dropped": self._duplicates,
            "contaminated_dropped": self._contaminated,
            "failed_gates": failed,
            **summary,
        }

    def _write(self, shard: Shard) -> None:
        kept = []
        statistics = Statistics()
        for made in shard.made:
            if made.bands in self._seen:
                continue
            self._seen.add(made.bands)
            kept.append(made)
            statistics.merge(made.statistics)
        files: dict[str, dict[str, Any]] = {}
        file = f"{shard.index:05d}.jsonl.gz"
        if "conversation" in self._recipe.forms:
            path = f"{self._name}/{file}"
            files[path] = write_gzip(self._output / path, (made.line for made in kept))
        if "decision" in self._recipe.forms:
            path = f"decisions/{self._name}/{file}"
            rows = (row for made in kept for row in made.decisions)
            files[path] = write_gzip(self._output / path, rows)
        state = {
            "files": files,
            "duplicates": len(shard.made) - len(kept),
            "contaminated": shard.contaminated,
            "counts": statistics.counts,
        }
        # The state comes last: with it the shard is finished, without it, it is made again.
        bands = np.array([made.bands for made in kept], dtype=np.uint64)
        write_bytes(self._state(shard.index, "bands"), bands.tobytes())
        write_json(self._state(shard.index, "json"), state)
        self._take(state)

    def _restore(self, index: int) -> bool:
        """Take a finished shard of an earlier run as it is."""
        path = self._state(index, "json")
        if not path.is_file():
            return False
        bands = np.frombuffer(self._state(index, "bands").read_bytes(), dtype=np.uint64)
        self._seen.add_all(bands.reshape(-1, self._recipe.duplicates.bands))
        self._take(json.loads(path.read_text(encoding="utf-8")))
        return True

    def _take(self, state: dict[str, Any]) -> None:
        self.files.update(state["files"])
        self._duplicates += state["duplicates"]
        self._contaminated += state["contaminated"]
        self.statistics.merge(Statistics(state["counts"]))

    def _state(self, index: int, kind: str) -> Path:
        return self._output / ".state" / f"{self._name}-{index:05d}.{kind}"


_maker: ShardMaker | None = None


def _make(maker: ShardMaker, indices: range, workers: int) -> Iterator[Shard]:
    """Shards in order, a few ahead of the reader."""
    if workers < 2 or len(indices) < 2:
        yield from map(maker, indices)
        return
    global _maker
    _maker = maker  # forked processes find it there: nothing is pickled or read twice
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(workers, len(indices)), mp_context=context) as pool:
        waiting: deque[Future[Shard]] = deque()
        rest = iter(indices)
        try:
            for index in rest:
                waiting.append(pool.submit(_make_one, index))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            _maker = None


def _make_one(index: int) -> Shard:
    assert _maker is not None
    return _maker(index)


def _begin(output: Path, fingerprint: str) -> dict[str, Any] | None:
    """The manifest of finished data, or None once the folder is ready to be (further) filled."""
    path = output / MANIFEST
    other = (
        f"{output} holds data of another recipe, or of other sources or benchmarks: "
        "choose another folder, or remove it"
    )
    if path.is_file():
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest.get("fingerprint") != fingerprint:
            raise InvalidRecord(other)
        if not manifest["passed"]:
            failed = manifest["parts"]["train"]["failed_gates"]
            raise GatesFailed(f"{output}: {'; '.join(failed)}")
        return manifest
    started = output / ".state" / "fingerprint"
    if started.is_file():
        if started.read_text() != fingerprint:
            raise InvalidRecord(other)
    elif output.exists() and any(output.iterdir()) and not (output / ".state").is_dir():
        raise InvalidRecord(f"{output} is not empty and holds no data of this kind")
    started.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(started, fingerprint.encode())
    return None


def _fingerprint(recipe: DataRecipe, inputs: Inputs) -> str:
    """A hash of all that the bytes depend on; the number of workers is not among it."""
    material = {
        "recipe": recipe.model_dump(mode="json"),
        "benchmarks": [_sha256(path) for path in inputs.benchmarks],
        "tokenizer": _sha256(inputs.tokenizer) if inputs.tokenizer else None,
        "sources": [source.fingerprint() for source in inputs.sources],
        "library": inputs.library.fingerprint,
    }
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()


def _content_hash(files: dict[str, dict[str, Any]]) -> str:
    lines = "".join(f"{name} {facts['sha256']}\n" for name, facts in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
