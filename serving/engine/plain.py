"""Checkpoints that our own passes run, read straight from their files: no transformers, no PEFT.

Those take seconds to import, which a server would wait for at each start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.encoder import EncoderRef, find_encoder
from routing.errors import UnsupportedCheckpoint
from serving.engine.bert import BertShape, BertStates
from serving.engine.contract import Contract
from serving.engine.llama import LlamaBackbone, LlamaShape
from serving.engine.lora import LoraAdapter
from serving.engine.tensors import TensorFiles

MODEL_PREFIX = "model."
"""Of a causal model's weights, beside its output projection."""
ENCODER_PREFIX = "encoder."
"""Of the encoder's weights in an adapter: training had it as a part of the causal model."""


def read_config(folder: Path) -> Mapping[str, Any]:
    """A model's `config.json`; empty where it cannot be read: transformers says what is wrong."""
    try:
        found = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class PlainModel:
    """A Llama, perhaps with a BERT, perhaps with LoRA; checked, its weights not yet read."""

    shape: LlamaShape
    files: TensorFiles
    encoder: tuple[BertShape, TensorFiles] | None
    adapter: LoraAdapter | None

    @classmethod
    def of(cls, contract: Contract, source: Path) -> PlainModel | None:
        """A checkpoint's, its language model's weights in `source`; None where it is another kind.

        Raises UnsupportedCheckpoint for what is of the kind and cannot be loaded.
        """
        folder, manifest = contract.folder, contract.manifest
        config = read_config(source)
        adapted = manifest.weights == "adapter"
        if not LlamaShape.fits(config) or (adapted and not LoraAdapter.fits(folder)):
            return None
        encoder = None
        if manifest.encoder is not None:
            place = find_encoder(manifest.encoder.name, folder)
            encoder = plain_encoder(manifest.encoder, place)
            if encoder is None:
                return None
        try:
            shape = LlamaShape.of(config, manifest.base.layers if source != folder else None)
        except (KeyError, TypeError, ValueError) as error:
            raise UnsupportedCheckpoint(
                f"cannot read the model in {source}: config.json: {type(error).__name__} {error}"
            ) from None
        files = TensorFiles(source, [MODEL_PREFIX])
        files.check(shape.tensors())
        if not adapted:
            return cls(shape, files, encoder, None)
        adapter = LoraAdapter(folder)
        shapes = {MODEL_PREFIX + name: size for name, size in shape.tensors().items()}
        if encoder is not None:
            of_it = encoder[0].tensors().items()
            shapes |= {ENCODER_PREFIX + name: size for name, size in of_it}
        adapter.check(shapes)
        return cls(shape, files, encoder, adapter)

    def backbone(self) -> LlamaBackbone:
        """The language model."""
        take = self.adapter.over(self.files, MODEL_PREFIX) if self.adapter else self.files
        return LlamaBackbone(self.shape, take)

    def encoder_states(self) -> BertStates | None:
        """The encoder, if there is one."""
        if self.encoder is None:
            return None
        shape, files = self.encoder
        return BertStates(
            shape, self.adapter.over(files, ENCODER_PREFIX) if self.adapter else files
        )

    def output_rows(self, tokens: Sequence[int]) -> Any:
        """Rows [tokens, hidden] of the output projection, which has no bias and no adapter."""
        shape = self.shape
        self.files.check({shape.output: (shape.vocabulary, shape.hidden)})
        return self.files(shape.output)[list(tokens)]


def plain_encoder(reference: EncoderRef, folder: Path) -> tuple[BertShape, TensorFiles] | None:
    """The encoder in `folder`, checked; None where it is no plain BERT."""
    config = read_config(folder)
    if not BertShape.fits(config):
        return None
    try:
        shape = BertShape.of(config)
    except (KeyError, TypeError, ValueError) as error:
        raise UnsupportedCheckpoint(
            f"cannot read the encoder in {folder}: config.json: {type(error).__name__} {error}"
        ) from None
    if shape.hidden != reference.hidden_size:
        raise UnsupportedCheckpoint(
            f"the encoder in {folder} has hidden size {shape.hidden}, the manifest says "
            f"{reference.hidden_size}"
        )
    files = TensorFiles(folder, ["bert."])
    files.check(shape.tensors())
    return shape, files
