"""A model folder's tensors, read by name straight from safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from routing.errors import UnsupportedCheckpoint

INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"

Take = Callable[[str], Any]
"""A tensor by its name, in float32."""


class TensorFiles:
    """Tensors of one file or of shards with an index.

    `prefixes` may stand before all names, and are left out of them. Raises UnsupportedCheckpoint
    for what cannot be read.
    """

    def __init__(self, folder: Path, prefixes: Iterable[str] = ()) -> None:
        self.folder = folder
        try:
            files = _files(folder)
            opened: list[Any] = [safe_open(path, framework="pt") for path in files]
            held = {name: file for file in opened for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UnsupportedCheckpoint(f"cannot load the model in {folder}: {error}") from None
        prefix = next((p for p in prefixes if any(name.startswith(p) for name in held)), "")
        self._files = {name.removeprefix(prefix): (name, file) for name, file in held.items()}

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise UnsupportedCheckpoint unless these tensors are there, of these shapes."""
        # Gaps must not be filled with random numbers: a router must not run on those.
        missing = sorted(shapes.keys() - self._files.keys())
        if missing:
            raise UnsupportedCheckpoint(
                f"the model in {self.folder} lacks {len(missing)} weights, {missing[0]} among them"
            )
        for name, shape in shapes.items():
            stored, file = self._files[name]
            found = tuple(file.get_slice(stored).get_shape())
            if found != shape:
                raise UnsupportedCheckpoint(
                    f"cannot load the model in {self.folder}: {name} is {found}, by the "
                    f"configuration {shape}"
                )

    def __call__(self, name: str) -> Any:
        stored, file = self._files[name]
        return file.get_tensor(stored).to(torch.float32)


def _files(folder: Path) -> list[Path]:
    if (folder / INDEX_FILE).is_file():
        weights = json.loads((folder / INDEX_FILE).read_text())["weight_map"]
        return [folder / name for name in sorted(set(weights.values()))]
    return [folder / WEIGHTS_FILE]
