"""Decide conversations in batches with torch: for evaluation and calibration, not for serving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from routing.decision import Calibration, Decision, decide
from routing.encoder import EncoderTokenizer, find_encoder
from routing.layout import Budget, Layout, choose_identifiers, in_reading_order
from routing.manifest import IdentifierReadOut, load_manifest
from routing.records import ConversationRecord
from routing.tokenizer import FileTokenizer
from training.bases import load_base
from training.checkpoint import load_checkpoint
from training.examples import Example, encode
from training.readout import Batch, collate, model_inputs, read_out

Scores = NDArray[np.float32]


class ModelDecider:
    """Decides by a model and a layout; one forward pass for all decisions of a conversation.

    Routes are read in the order of engines, or `as_listed`, which shows what orders do to a model.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        layout: Layout,
        calibration: Calibration,
        *,
        batch_tokens: int = 4096,
        encoder: EncoderTokenizer | None = None,
        as_listed: bool = False,
    ) -> None:
        self.name = name
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.to(self._device)
        self._layout = layout
        self.calibration = calibration
        self._batch_tokens = batch_tokens
        self._encoder = encoder
        self._as_listed = as_listed

    @classmethod
    def from_checkpoint(
        cls, folder: Path, base: Path | None, *, as_listed: bool = False
    ) -> ModelDecider:
        """The decider of a checkpoint; `base` is needed for adapters.

        On a GPU the weights are of the type they were trained in, so that a large model fits.
        """
        recipe = load_manifest(folder, verify=False).provenance.get("recipe", {})
        trained = recipe.get("dtype", "float32") if torch.cuda.is_available() else "float32"
        model, manifest = load_checkpoint(folder, base, trained)
        read_out = manifest.read_out
        identifiers = read_out.identifiers if isinstance(read_out, IdentifierReadOut) else None
        tokenizer = FileTokenizer(folder / "tokenizer.json")
        layout = Layout(tokenizer, manifest.budget, identifiers, version=manifest.layout_version)
        texts = None
        if manifest.encoder is not None:
            source = find_encoder(manifest.encoder.name, folder) / "tokenizer.json"
            texts = EncoderTokenizer(source, manifest.encoder.max_tokens)
        return cls(
            manifest.name,
            model,
            layout,
            manifest.calibration,
            encoder=texts,
            as_listed=as_listed,
        )

    @classmethod
    def untrained(cls, base: Path, budget: Budget | None = None) -> ModelDecider:
        """The base model as it is, by the identifier read-out: what training has to beat."""
        tokenizer = FileTokenizer(base / "tokenizer.json")
        layout = Layout(tokenizer, budget or Budget(), choose_identifiers(tokenizer, 65))
        model = load_base(base).eval()
        return cls("untrained base", model, layout, Calibration(none_threshold=1.0))

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        """One list a conversation, one decision a label, in order."""
        stream = iter(conversations)
        # A window of conversations is sorted by length, so that batches waste little on padding.
        while window := list(islice(stream, 64)):
            for record, scores in zip(window, self.scores(window), strict=True):
                names = [route.name for route in record.routes]
                yield [decide(names, row, self.calibration) for row in scores]

    def scores(self, records: list[ConversationRecord]) -> list[list[Scores]]:
        """Uncalibrated scores [K+1] of every label of every record, in its own order of routes."""
        if self._as_listed:
            return self._scores(records)
        orders = [in_reading_order(record.routes) for record in records]
        read = [
            record.model_copy(update={"routes": routes})
            for record, (routes, _) in zip(records, orders, strict=True)
        ]
        return [
            [row[places] for row in rows]
            for rows, (_, places) in zip(self._scores(read), orders, strict=True)
        ]

    def _scores(self, records: list[ConversationRecord]) -> list[list[Scores]]:
        results: list[list[Scores]] = [
            [np.zeros(0, np.float32)] * len(record.decisions) for record in records
        ]
        work: list[tuple[Example, int, list[int]]] = [
            (example, index, labels)
            for index, record in enumerate(records)
            for example, labels in encode(self._layout, record)
        ]
        work.sort(key=lambda item: item[0].length)
        while work:
            batch = [work.pop()]
            while work and (len(batch) + 1) * batch[0][0].length <= self._batch_tokens:
                batch.append(work.pop())
            rows = iter(self._run([example for example, _, _ in batch]))
            for example, index, labels in batch:
                for label in labels:
                    results[index][label] = next(rows)[: len(example.line_ends)]
        return results

    @torch.inference_mode()
    def _run(self, examples: list[Example]) -> list[Scores]:
        collated = collate(examples, pad=0, encoder=self._encoder)
        batch = Batch({k: v.to(self._device) for k, v in collated.items()})
        states = self._model.base_model(**model_inputs(batch), use_cache=False).last_hidden_state
        return list(read_out(self._model, states, batch).float().cpu().numpy())
