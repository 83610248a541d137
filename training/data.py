"""Training data: records checked once before training, and laid out anew for every epoch."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from routing.conversation import normalise
from routing.encoder import EncoderTokenizer
from routing.errors import ContractError
from routing.layout import Layout
from routing.records import ConversationRecord, read_conversations
from training.examples import Example, SoftTargets, encode
from training.readout import Batch, collate
from training.recipe import RecipeError, TrainRecipe
from training.redraw import redraw

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Rows of `record` (JSON) and `length` (tokens, as written), in the order of training."""

    rows: Dataset
    conversations: int
    decisions: int
    tokens: int
    longest: int
    """Tokens of the longest sequence."""

    def records(self, count: int) -> list[ConversationRecord]:
        """The first `count` records."""
        rows = self.rows.select(range(min(count, len(self.rows))))["record"]
        return [ConversationRecord.model_validate_json(row) for row in rows]


def load_data(recipe: TrainRecipe, layout: Layout, data: Path) -> TrainingData:
    """Read, check and shuffle all records that a run will need.

    Every one of them is laid out once, so that a record that cannot be trained on ends the run
    before it begins. Raises RecipeError and InvalidRecord, naming file, line or record.
    """
    records = list(read_conversations(data))
    if not records:
        raise RecipeError(f"{data} holds no decisions")
    random.Random(recipe.seed).shuffle(records)
    if recipe.max_steps is not None:
        wanted = recipe.max_steps * recipe.step_conversations
        if wanted > len(records):
            logger.info("%d records for %d places: some are seen again", len(records), wanted)
        records = records[:wanted]
    rows: list[dict[str, Any]] = []
    decisions = longest = 0
    for record in records:
        lengths = _checked_lengths(layout, record, data)
        rows.append({"record": record.model_dump_json(), "length": sum(lengths)})
        decisions += len(record.decisions)
        longest = max(longest, *lengths)
    tokens = sum(row["length"] for row in rows)
    logger.info("%d conversations, %d decisions, %d tokens", len(rows), decisions, tokens)
    return TrainingData(Dataset.from_list(rows), len(rows), decisions, tokens, longest)


def _checked_lengths(layout: Layout, record: ConversationRecord, data: Path) -> list[int]:
    try:
        prefix = layout.prefix(record.routes)
        prompts = layout.prompts(prefix, normalise(record.messages))
    except ContractError as error:
        raise RecipeError(f"{data}: record {record.id}: {error}") from None
    lengths = [len(prompt.tokens) for prompt in prompts]
    if not lengths or max(lengths) > layout.budget.max_tokens:
        raise RecipeError(
            f"{data}: record {record.id}: sequences of {lengths} tokens, not at most "
            f"{layout.budget.max_tokens}"
        )
    return lengths


@dataclass
class Collator:
    """Batches of rows, each drawn for the current epoch; the same for a seed, epoch and record."""

    recipe: TrainRecipe
    layout: Layout
    pad: int
    soft: Mapping[str, SoftTargets] = field(default_factory=dict)
    encoder: EncoderTokenizer | None = None
    epoch: int = 0
    """Set by the trainer as an epoch begins."""
    progress: float = 0.0
    """Epochs trained so far, in eighths; drives the curriculum."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        examples = [example for row in rows for example in self.examples(row["record"])]
        return collate(examples, self.pad, packed=self.recipe.packing, encoder=self.encoder)

    def examples(self, text: str) -> Iterator[Example]:
        """Examples of one record, as drawn for this epoch."""
        record = ConversationRecord.model_validate_json(text)
        settings = self.recipe.redraw
        if self.soft:  # the larger model was never asked about spare routes
            settings = settings.model_copy(update={"distractors": False})
        rng = random.Random(f"{self.recipe.seed}/{self.epoch}/{record.id}")
        drawn, before = redraw(record, settings, rng, self.progress)
        soft = self.soft.get(record.id)
        if soft is not None:
            soft = {m: _renamed(shares, before) for m, shares in soft.items()}
        deal = rng if self.layout.identifier_count and settings.identifiers else None
        try:
            self.layout.prefix(drawn.routes)
        except ContractError:  # longer wordings may not fit where the record's own do
            drawn, soft = record, self.soft.get(record.id)
        for example, _ in encode(self.layout, drawn, redraw=deal, soft=soft):
            # The budget bounds what is drawn as well; a sequence is never cut to fit.
            assert example.length <= self.layout.budget.max_tokens
            yield example


def _renamed(shares: Mapping[str, float], before: Mapping[str, str]) -> dict[str, float]:
    """Shares by the names now offered, made to sum to 1 over those."""
    kept = {now: shares.get(old, 0.0) for now, old in {**before, "none": "none"}.items()}
    total = sum(kept.values())
    return {name: share / total for name, share in kept.items()} if total else {}


def read_soft_targets(path: Path) -> dict[str, SoftTargets]:
    """Distributions by record and message that `pointsman soften` wrote; raises RecipeError."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 - named in the error
                row = json.loads(line)
                found.setdefault(row["id"], {})[int(row["message"])] = row["distribution"]
    except OSError as error:
        raise RecipeError(f"cannot read soft targets: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"soft targets {path}:{number}: {error!r}") from None
    return dict(found)
