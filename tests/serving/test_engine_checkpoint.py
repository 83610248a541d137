"""Checkpoints that cannot be served are refused, and the reason is said."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny import TinyCheckpoint, make_checkpoint

from routing.errors import UnsupportedCheckpoint
from routing.manifest import file_sha256
from serving.engine.embedded import EmbeddedEngine


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyCheckpoint]:
    root = tmp_path_factory.mktemp("originals")
    return {
        "merged": make_checkpoint(root / "merged"),
        "adapter": make_checkpoint(root / "adapter", weights="adapter"),
        "identifier": make_checkpoint(root / "identifier", read_out="identifier"),
    }


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    if path.name != "manifest.json":
        trust(path)


def trust(path: Path) -> None:
    """Put the file's new hash into the manifest, so that only its content is at fault."""
    manifest = path.parent / "manifest.json"
    if path.name in json.loads(manifest.read_text())["files"]:
        edit_json(manifest, lambda m: m["files"].update({path.name: file_sha256(path)}))


def manifest(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "manifest.json", lambda m: m.update(changes))


def base_ref(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "manifest.json", lambda m: m["base"].update(changes))


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", lambda c: c.update(changes))


def without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        edit_json(folder / "manifest.json", lambda m: m["files"].pop(name, None))

    return change


def tensors(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = load_file(folder / name)
        change(content)
        save_file(content, folder / name, metadata={"format": "pt"})
        trust(folder / name)

    return apply


def rename_one(content: dict[str, Any]) -> None:
    name = sorted(content)[0]
    content[name + ".other"] = content.pop(name)


def identifiers(values: list[str]) -> Callable[[Path], None]:
    return manifest(read_out={"kind": "identifier", "identifiers": values})


def narrow(content: dict[str, Any]) -> None:
    content.update({name: np.ones((32, 48), np.float32) for name in ("query.weight", "key.weight")})


def break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    trust(folder / "tokenizer.json")


def weights_changed(folder: Path) -> None:
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")


def pickled(folder: Path) -> None:
    without("model.safetensors")(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not to be unpickled")


BROKEN = {
    "no manifest": ("merged", lambda folder: (folder / "manifest.json").unlink(), "no checkpoint"),
    "unknown layout": ("merged", manifest(layout_version=99), "layout version 99"),
    "no tokenizer": ("merged", without("tokenizer.json"), "lacks tokenizer.json"),
    "bad tokenizer": ("merged", break_tokenizer, "cannot read tokenizer"),
    "no config": ("merged", without("config.json"), "lacks config.json"),
    "no weights": ("merged", without("model.safetensors"), "cannot load the model"),
    "pickled weights": ("merged", pickled, "cannot load the model"),
    "changed weights": ("merged", weights_changed, "differs from its manifest's hash"),
    "weights missing": ("merged", tensors("model.safetensors", rename_one), r"lacks \d weights"),
    "no pointer": ("merged", without("pointer.safetensors"), "lacks pointer.safetensors"),
    "pointer's hidden size": ("merged", tensors("pointer.safetensors", narrow), r"\(32, 48\)"),
    "pointer's dim": ("merged", manifest(read_out={"kind": "pointer", "dim": 16}), r"\(16, 64\)"),
    "hidden size": ("identifier", base_ref(hidden_size=576), "hidden size 64"),
    "vocabulary": ("merged", base_ref(vocabulary=50000), "vocabulary 49152"),
    "small vocabulary": ("merged", base_ref(vocabulary=1000), "49152 tokens"),
    "short context": ("merged", config(max_position_embeddings=512), "reads 512 tokens"),
    "sliding": ("merged", config(layer_types=["full_attention", "sliding_attention"]), "sliding"),
    "unknown architecture": ("merged", config(model_type="nonesuch"), "cannot read the model"),
    "remote code": (
        "merged",
        config(model_type="nonesuch", auto_map={"AutoConfig": "evil.Config"}),
        "cannot read the model",
    ),
    "long identifier": ("identifier", identifiers(["A", "wagonettes"]), "single tokens"),
    "repeated identifier": ("identifier", identifiers(["A", "A"]), "single tokens"),
    "one identifier": ("identifier", identifiers(["A"]), "at least 2"),
    "no adapter": ("adapter", without("adapter_model.safetensors"), "lacks adapter_model"),
    "no adapter config": ("adapter", without("adapter_config.json"), "lacks adapter_config"),
    "other adapter": (
        "adapter",
        tensors("adapter_model.safetensors", rename_one),
        "does not fit its base",
    ),
}


async def start_and_close(folder: Path, base: Path | None) -> None:
    engine = EmbeddedEngine(folder, base)
    try:
        await engine.start()
    finally:
        await engine.close()


async def refusal(folder: Path, base: Path | None) -> str:
    with pytest.raises(UnsupportedCheckpoint) as caught:
        await start_and_close(folder, base)
    return caught.value.message


@pytest.mark.parametrize("name", BROKEN)
async def test_broken_checkpoint(
    name: str,
    originals: dict[str, TinyCheckpoint],
    tmp_path: Path,
) -> None:
    kind, change, reason = BROKEN[name]
    folder = tmp_path / "checkpoint"
    shutil.copytree(originals[kind].folder, folder)
    change(folder)
    message = await refusal(folder, originals[kind].base)
    assert re.search(reason, message), message


async def test_adapter_needs_its_base(originals: dict[str, TinyCheckpoint], tmp_path: Path) -> None:
    folder = originals["adapter"].folder
    assert "no base folder was given" in await refusal(folder, None)
    assert "holds no config.json" in await refusal(folder, tmp_path / "nowhere")
