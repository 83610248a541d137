"""Whole weights of a checkpoint, for readers that take no adapter: merged once, kept in a cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from routing.encoder import ENCODER_FOLDER, find_encoder
from routing.errors import UnsupportedCheckpoint
from routing.pointer import POINTER_FILE
from serving.engine.checkpoint import checked_source
from serving.engine.contract import TOKENIZER_FILE, Contract
from serving.engine.encoder import Embedder, load_states
from serving.engine.tensors import INDEX_FILE

_TOKENIZER_FILES = ("tokenizer_config.json", "chat_template.jinja")


def merged_folder(contract: Contract, base: Path | None) -> Path:
    """A folder that transformers and vLLM load; the checkpoint's own where it is whole.

    Else one in the cache (`POINTSMAN_CACHE`, or `~/.cache/pointsman`), named after the checkpoint's
    version, so that another version never meets it. Raises UnsupportedCheckpoint.
    """
    if contract.manifest.weights == "merged":
        beside = (contract.folder / POINTER_FILE).is_file()
        if beside and not (contract.folder / INDEX_FILE).is_file():
            raise UnsupportedCheckpoint(
                f"{contract.folder} lacks {INDEX_FILE}, without which vLLM takes the pointer for "
                "weights of the model: export it anew"
            )
        return contract.folder
    cache = Path(os.environ.get("POINTSMAN_CACHE") or Path.home() / ".cache" / "pointsman")
    folder = cache.expanduser() / "merged" / contract.manifest.version
    if (folder / "config.json").is_file():
        return folder
    from serving.engine.whole import load_weights  # transformers takes seconds to import

    weights = load_weights(contract, checked_source(contract, base))
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        if weights.encoder is not None and contract.manifest.encoder is not None:
            weights.encoder.save_pretrained(part / ENCODER_FOLDER)
            source = find_encoder(contract.manifest.encoder.name, contract.folder)
            shutil.copyfile(source / TOKENIZER_FILE, part / ENCODER_FOLDER / TOKENIZER_FILE)
        weights.model.save_pretrained(part)
        shutil.copyfile(contract.folder / TOKENIZER_FILE, part / TOKENIZER_FILE)
        for name in _TOKENIZER_FILES:
            if base is not None and (base / name).is_file():
                shutil.copyfile(base / name, part / name)
        if not folder.exists():  # another process may have been first
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def load_embedder(contract: Contract, base: Path | None) -> Embedder:
    """The checkpoint's encoder, with its adapter merged."""
    reference = contract.manifest.encoder
    assert reference is not None
    folder = merged_folder(contract, base)
    states = load_states(reference, find_encoder(reference.name, folder))
    return Embedder(states, reference, folder)
