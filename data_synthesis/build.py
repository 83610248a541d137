"""From a recipe to files on disk: train and validation records, and a manifest.

Validation keeps whole groups of tasks back: no request for such a task, and no dialogue that
touches one, is trained on.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from data_synthesis.compose import Composer
from data_synthesis.corpus import Corpus
from data_synthesis.readers import READERS, read_wordings
from data_synthesis.recipe import DataRecipe
from routing.errors import InvalidRecord
from routing.records import ConversationRecord

MANIFEST = "dataset.json"
Progress = Callable[[Iterable[int]], Iterable[int]]


def read_corpora(recipe: DataRecipe, folder: Path, wordings: Path) -> list[Corpus]:
    """The corpora that a recipe names; raises InvalidRecord for one that no reader knows."""
    unknown = [name for name in recipe.corpora if name not in READERS]
    if unknown:
        raise InvalidRecord(f"corpora.{unknown[0]}: known corpora are {', '.join(READERS)}")
    extra = read_wordings(wordings)
    return [READERS[name](folder, extra) for name in sorted(recipe.corpora)]


def split(corpus: Corpus, share: float, seed: int) -> tuple[Corpus, Corpus]:
    """Train and validation parts of a corpus, apart by whole groups of tasks."""
    groups = sorted({task.group for task in corpus.tasks.values()})
    random.Random(f"{seed}/{corpus.name}").shuffle(groups)
    held_out: set[str] = set()
    for group in groups:
        if len(held_out) >= share * len(corpus.tasks):
            break
        held_out |= {key for key, task in corpus.tasks.items() if task.group == group}
    train = corpus.restricted(corpus.tasks.keys() - held_out)
    validation = corpus.restricted(held_out)
    if corpus.dialogues:
        # Dialogues wander between services: one that touches a held-out service is validation's.
        touching = tuple(d for d in corpus.dialogues if held_out.intersection(d.tasks))
        validation = Corpus(
            corpus.name, corpus.licence, corpus.tasks, corpus.groups, validation.requests, touching
        )
    return train, validation


def build(
    recipe: DataRecipe,
    corpora: list[Corpus],
    output: Path,
    progress: Progress = lambda items: items,
) -> dict[str, Any]:
    """Write `train.jsonl.gz`, `validation.jsonl.gz` and `dataset.json`; returns the manifest.

    Each file appears whole or not at all. The same recipe and corpora give the same bytes.
    """
    output.mkdir(parents=True, exist_ok=True)
    parts = [split(corpus, recipe.held_out_share, recipe.seed) for corpus in corpora]
    manifest: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "sources": {corpus.name: {"licence": corpus.licence} for corpus in corpora},
        "files": {},
    }
    counts = {"train": recipe.conversations, "validation": recipe.validation_conversations}
    for index, (name, count) in enumerate(counts.items()):
        composer = Composer(recipe, [part[index] for part in parts])
        records = (composer.record(f"{recipe.name}-{name}-{i:07d}") for i in progress(range(count)))
        manifest["files"][f"{name}.jsonl.gz"] = _write(output / f"{name}.jsonl.gz", records)
    (output / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def _write(path: Path, records: Iterable[ConversationRecord]) -> dict[str, Any]:
    """Write records and count them: decisions, share of "none" and "several", routes."""
    tally: Counter[str] = Counter()
    digest = hashlib.sha256()
    part = path.with_suffix(".part")
    with (
        open(part, "wb") as raw,
        # A fixed time and no name in the header: the same records give the same bytes.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        TextIOWrapper(packed, encoding="utf-8", newline="\n") as file,
    ):
        for record in records:
            line = record.model_dump_json() + "\n"
            digest.update(line.encode())
            file.write(line)
            tally["conversations"] += 1
            tally["decisions"] += len(record.decisions)
            tally["routes"] += len(record.routes)
            tally["none"] += sum(not label.expected for label in record.decisions)
            tally["several"] += sum(len(label.expected) > 1 for label in record.decisions)
    part.replace(path)
    return {"sha256_of_lines": digest.hexdigest(), **tally}
