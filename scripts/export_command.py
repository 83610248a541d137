"""`pointsman export`: a checkpoint as a whole model, checked by those who will read it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scripts.eval_command import base_of
from scripts.logs import log_to_stderr
from scripts.places import ROOT

if TYPE_CHECKING:
    from routing.conversation import Conversation
    from routing.decision import Decision
    from routing.records import ConversationRecord
    from routing.tasks import Route
    from training.export import Agreement


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    output: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Records to compare decisions on: a folder or a file.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of the weights written.")
    ] = "float32",
    base: Annotated[Path | None, typer.Option(help="Base model's folder, of an adapter.")] = None,
    push: Annotated[
        str | None, typer.Option(help="Hub repository to upload the export to.")
    ] = None,
) -> None:
    """Write merged weights that transformers and vLLM load, and check that they decide alike.

    An export whose weights are the base's own, or that an engine reads otherwise than training
    does, is refused and removed.
    """
    log_to_stderr()
    import shutil

    from training.export import ExportRefused
    from training.export import export as run

    weights = base or base_of(checkpoint)
    folder = output or ROOT / "exports" / checkpoint.resolve().parent.name
    manifest = run(checkpoint, weights, folder, dtype)
    try:
        for found in _agreements(checkpoint, weights, folder, examples, exact=dtype == "float32"):
            print(
                f"{found.reader}: same choice in {found.same_choice:.1%} of {found.decisions} "
                f"decisions, probabilities differ by at most {found.largest_difference:.5f}"
            )
    except ExportRefused:
        shutil.rmtree(folder)
        raise
    if push is not None:
        from huggingface_hub import HfApi

        HfApi().create_repo(push, exist_ok=True, private=True)
        HfApi().upload_folder(repo_id=push, folder_path=str(folder))
    print(f"{manifest.name} {manifest.version}: {folder}")


def _agreements(
    checkpoint: Path, base: Path | None, folder: Path, examples: Path | None, *, exact: bool
) -> Iterator[Agreement]:
    """Each reader's agreement with the trained checkpoint; raises ExportRefused for too little."""
    from training.export import agreement, refuse_disagreement
    from training.scoring import ModelDecider

    records = _examples(examples)
    expected = _flat(ModelDecider.from_checkpoint(checkpoint, base).decide_all(records))
    readers: dict[str, Callable[[Path, list[ConversationRecord]], list[Decision]]] = {
        "transformers": _transformers,
        "the embedded engine": _embedded,
    }
    if vllm_is_installed():
        readers["vLLM"] = partial(_vllm, dtype="float32" if exact else "auto")
    for name, read in readers.items():
        found = agreement(name, expected, read(folder, records))
        refuse_disagreement(found, exact=exact)
        yield found


def vllm_is_installed() -> bool:
    """Found without importing it, which takes ten seconds."""
    return importlib.util.find_spec("vllm") is not None


def _examples(path: Path | None) -> list[ConversationRecord]:
    """Conversations with about 200 decisions between them; authored ones if there is no path."""
    from routing.records import read_conversations
    from scripts.data_command import composer_of
    from training.export import AGREEMENT_EXAMPLES, ExportRefused

    if path is None:
        composer = composer_of("nano-authored")
        source: Iterator[ConversationRecord] = (
            composer.record(f"agreement-{number}") for number in count()
        )
    else:
        source = read_conversations(path)
    found: list[ConversationRecord] = []
    for record in source:
        found.append(record)
        if sum(len(each.decisions) for each in found) >= AGREEMENT_EXAMPLES:
            break
    if not found:
        raise ExportRefused(f"{path} holds no examples to compare decisions on")
    return found


def _transformers(folder: Path, records: list[ConversationRecord]) -> list[Decision]:
    from training.scoring import ModelDecider

    return _flat(ModelDecider.from_checkpoint(folder, None).decide_all(records))


def _embedded(folder: Path, records: list[ConversationRecord]) -> list[Decision]:
    from routing.conversation import normalise
    from serving.engine.checkpoint import load_model
    from serving.engine.contract import read_contract
    from serving.engine.prefixes import PrefixMemo
    from serving.engine.scorer import Scorer

    contract = read_contract(folder)
    prefixes = PrefixMemo(contract.layout)
    scorer = Scorer(contract, load_model(contract, None), prefixes, cache_bytes=512 * 2**20)
    return [
        scorer.decide(record.routes, normalise(record.messages[: label.message + 1]))
        for record in records
        for label in record.decisions
    ]


def _vllm(folder: Path, records: list[ConversationRecord], *, dtype: str) -> list[Decision]:
    import asyncio

    from routing.conversation import normalise
    from serving.config import VllmConfig
    from serving.engine.configured import configured_engine

    # Compiling for 200 decisions takes longer than they do.
    config = VllmConfig.model_validate(
        {
            "kind": "vllm",
            "checkpoint": folder,
            "dtype": dtype,
            "max_waiting": 256,
            "options": {"enforce_eager": True},
        }
    )
    asked = [
        (record.routes, normalise(record.messages[: label.message + 1]))
        for record in records
        for label in record.decisions
    ]

    async def decide() -> list[Decision]:
        engine = configured_engine(config, {})
        try:
            await engine.start()
            limit = asyncio.Semaphore(32)

            async def one(routes: list[Route], conversation: Conversation) -> Decision:
                async with limit:
                    return await engine.decide(routes, conversation)

            return await asyncio.gather(*(one(*each) for each in asked))
        finally:
            await engine.close()

    return asyncio.run(decide())


def _flat(decisions: Iterator[list[Decision]]) -> list[Decision]:
    return [decision for each in decisions for decision in each]
