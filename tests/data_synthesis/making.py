"""Small builds for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpora_files import write_corpora
from library_files import write_library

from data_synthesis.authored.library import load_library
from data_synthesis.build import Inputs, build
from data_synthesis.recipe import DataRecipe
from data_synthesis.sources.opening import open_sources
from routing.records import ConversationRecord, read_conversations

OPERATORS: list[dict[str, Any]] = [
    {"op": "mix_scenarios", "share": 0.3},
    {"op": "inject_irrelevance", "share": 0.2},
    {"op": "join_requests", "share": 0.3},
    {"op": "pad_context", "share": 0.1},
    {"op": "agent_envelopes", "share": 0.15},
    {"op": "hasty_typing", "line_share": 0.2},
    {"op": "remove_gold", "share": 0.2},
    {
        "op": "offer_routes",
        "counts": [{"low": 3, "high": 8}],
        "grains": {"task": 6, "domain": 1, "family": 1, "mixed": 1},
    },
    {"op": "word_routes"},
    {"op": "shuffle_routes"},
]
CORPORA = ("clinc", "metatool", "sgd")
OPEN_GATES = {
    "none_share": [0, 1],
    "position_p": 0,
    "task_share": 1,
    "top_grams": 1,
    "duplicate_share": 1,
}


def recipe(*sources: str, **updates: Any) -> DataRecipe:
    values: dict[str, Any] = {
        "name": "t",
        "seed": 3,
        "conversations": 300,
        "validation_conversations": 60,
        "sources": {name: {"weight": 1} for name in sources or ("authored", *CORPORA)},
        "operators": OPERATORS,
        "held_out_share": 0.2,
        "shard_conversations": 60,
        # The tests' little corpora say the same few things again and again.
        "gates": OPEN_GATES,
        "duplicates": {"bands": 1, "rows": 64},
    }
    return DataRecipe.model_validate({**values, **updates})


def inputs(folder: Path, chosen: DataRecipe, **updates: Any) -> Inputs:
    """Inputs over files in `folder`, which are written unless they are there."""
    if not (folder / "corpora").is_dir():
        write_corpora(folder / "corpora")
        write_library(folder)
        (folder / "wordings.yaml").write_text("clinc: {}\n")
    library = load_library(folder / "authored", folder / "taxonomy")
    sources = open_sources(chosen, library, folder / "corpora", folder / "wordings.yaml")
    return Inputs(sources, library, updates.pop("benchmarks", []), **updates)


def make(folder: Path, chosen: DataRecipe, name: str = "out", **updates: Any) -> dict[str, Any]:
    return build(chosen, inputs(folder, chosen, **updates), folder / name)


def records(folder: Path, part: str = "train", name: str = "out") -> list[ConversationRecord]:
    return list(read_conversations(folder / name / part))


def digests(folder: Path) -> dict[str, bytes]:
    """Every data file of an output folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.jsonl.gz"))
    }
