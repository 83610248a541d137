"""The part of a checkpoint that lays conversations out: light to read, no weights, no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from routing.errors import UnsupportedCheckpoint
from routing.layout import Layout
from routing.manifest import IdentifierReadOut, Manifest, load_manifest
from routing.tokenizer import FileTokenizer
from serving.engine.token_memo import RememberingTokenizer

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Contract:
    """What a folder says of how conversations are to be read."""

    folder: Path
    manifest: Manifest
    tokenizer: FileTokenizer
    layout: Layout


def read_contract(folder: Path) -> Contract:
    """Manifest, tokenizer and layout of a folder; raises UnsupportedCheckpoint.

    Files are hashed when weights are loaded, so this is quick for a large checkpoint too.
    """
    manifest = load_manifest(folder, verify=False)
    require(folder, [TOKENIZER_FILE])
    tokenizer = RememberingTokenizer(folder / TOKENIZER_FILE)
    if tokenizer.size > manifest.base.vocabulary:
        raise UnsupportedCheckpoint(
            f"{folder / TOKENIZER_FILE} has {tokenizer.size} tokens, "
            f"the base {manifest.base.name} only {manifest.base.vocabulary}"
        )
    read_out = manifest.read_out
    identifiers = read_out.identifiers if isinstance(read_out, IdentifierReadOut) else None
    try:
        layout = Layout(tokenizer, manifest.budget, identifiers, version=manifest.layout_version)
    except UnsupportedCheckpoint:
        raise
    except ValueError as error:
        raise UnsupportedCheckpoint(f"{folder}: {error}") from None
    return Contract(folder, manifest, tokenizer, layout)


def require(folder: Path, names: Iterable[str]) -> None:
    """Raise UnsupportedCheckpoint unless the folder has these files."""
    for name in names:
        if not (folder / name).is_file():
            raise UnsupportedCheckpoint(f"{folder} lacks {name}")
