"""Writing and reading checkpoints: weights, pointer, tokenizer, manifest and card in one folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from routing.encoder import ENCODER_FOLDER, EncoderRef, encoder_revision, find_encoder
from routing.errors import UnsupportedCheckpoint
from routing.manifest import (
    MANIFEST_FILE,
    BaseModelRef,
    IdentifierReadOut,
    Manifest,
    PointerReadOut,
    file_sha256,
    load_manifest,
)
from routing.pointer import POINTER_FILE
from routing.records import shards
from training.bases import load_base
from training.card import write_card
from training.encoder import load_encoder
from training.readout import Pointer
from training.recipe import TrainRecipe

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def save_checkpoint(
    model: nn.Module,
    folder: Path,
    *,
    recipe: TrainRecipe,
    base: Path,
    base_revision: str,
    identifiers: Sequence[str] | None,
    data: Path,
    history: list[dict[str, Any]],
    weights: dict[str, Any] | None = None,
) -> Path:
    """Write a complete checkpoint folder, replacing an earlier one only once it is whole.

    `weights` are the whole model's, gathered, where the model itself holds only a part of them.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    pointer, weights = _take_pointer(model, weights)
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    encoder = getattr(plain, "encoder", None)
    if pointer is not None:
        save_file(_halved(pointer), part / POINTER_FILE)
    if isinstance(model, PeftModel):
        _save_adapter(model, part, weights)
    else:
        assert isinstance(model, PreTrainedModel)
        if encoder is not None and recipe.encoder is not None:
            save_encoder(encoder, find_encoder(recipe.encoder.name), part)
            del model.encoder
        reset_for_serving(model)
        model.save_pretrained(part, state_dict=weights)
        write_index(part)
    shutil.copyfile(base / "tokenizer.json", part / "tokenizer.json")
    manifest = Manifest(
        name=recipe.name,
        layout_version=recipe.layout_version,
        base=BaseModelRef(
            name=recipe.base_model if recipe.tiny is None else f"tiny-{recipe.architecture}",
            revision=base_revision,
            hidden_size=plain.config.hidden_size,
            vocabulary=plain.config.vocab_size,
            layers=recipe.layers,
        ),
        weights="adapter" if isinstance(model, PeftModel) else "merged",
        read_out=(
            IdentifierReadOut(identifiers=list(identifiers))
            if identifiers is not None
            else PointerReadOut(dim=recipe.pointer_dim, lines=recipe.pointer_lines)
        ),
        encoder=encoder_ref(recipe, encoder.config.hidden_size) if encoder else None,
        budget=recipe.budget,
        files=files_of(part),
        provenance={
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "recipe": recipe.model_dump(mode="json"),
            "data_sha256": data_sha256(data),
            "data": _data_manifest(data),
            "git_commit": _git_commit(),
            "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
            "training": history[-1] if history else {},
        },
    )
    manifest.save(part)
    write_card(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def write_index(folder: Path) -> None:
    """Say which files hold the model, where its weights are in one file and none says it yet.

    vLLM loads every safetensors file of a folder without an index, the pointer's too.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not single.is_file() or index.is_file():
        return
    with safe_open(single, framework="numpy") as file:
        names = sorted(file.keys())
    content = {
        "metadata": {"total_size": single.stat().st_size},
        "weight_map": dict.fromkeys(names, single.name),
    }
    index.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of all that decisions depend on, by path within the folder."""
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    told = {MANIFEST_FILE, "README.md"}
    return {name: file_sha256(path) for name, path in files.items() if name not in told}


def reset_for_serving(model: PreTrainedModel) -> None:
    """Undo what training set in a model's configuration."""
    model.config.use_cache = True
    if hasattr(model.config, "output_router_logits"):
        model.config.output_router_logits = False


def load_checkpoint(
    folder: Path, base: Path | None, dtype: str = "float32"
) -> tuple[PreTrainedModel, Manifest]:
    """The model of a checkpoint with its adapter merged and `pointer` attached, ready to decide.

    `base` is the base model's folder, needed for an adapter. Raises UnsupportedCheckpoint.
    """
    manifest = load_manifest(folder)
    if manifest.weights == "adapter":
        if base is None:
            raise UnsupportedCheckpoint(f"{folder} is an adapter and needs its base model")
        model = load_base(base, manifest.base.layers, dtype=dtype)
        _attach_encoder(model, manifest, folder)
        model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    else:
        model = load_base(folder, dtype=dtype)
        _attach_encoder(model, manifest, folder)
    if isinstance(manifest.read_out, PointerReadOut):
        model.pointer = Pointer(
            manifest.base.hidden_size,
            manifest.read_out.dim,
            manifest.read_out.lines,
            manifest.encoder.hidden_size if manifest.encoder else 0,
        )
        load_head(model.pointer, folder)
    return model.eval(), manifest


def load_head(pointer: Pointer, folder: Path) -> None:
    """Put a checkpoint's head into a pointer of the same sizes."""
    # Standardising is folded in; a head of an earlier release has no biases: they stay zero.
    head = load_file(folder / POINTER_FILE)
    head["log_scale"] = head["log_scale"].reshape(1)
    head["start_scale"] = torch.zeros(1)
    pointer.load_state_dict(head, strict=False)


def encoder_ref(recipe: TrainRecipe, width: int) -> EncoderRef:
    """How the manifest names a recipe's encoder of `width` dimensions."""
    assert recipe.encoder is not None
    return EncoderRef(
        name=recipe.encoder.name,
        revision=encoder_revision(recipe.encoder.name),
        hidden_size=width,
        max_tokens=recipe.encoder.max_tokens,
    )


def save_encoder(encoder: nn.Module, source: Path, folder: Path) -> None:
    """Write a whole encoder, and the tokenizer of `source`, beside a whole model."""
    assert isinstance(encoder, PreTrainedModel)
    target = folder / ENCODER_FOLDER
    encoder.save_pretrained(target)
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")


def _attach_encoder(model: PreTrainedModel, manifest: Manifest, folder: Path) -> None:
    if manifest.encoder is not None:
        model.encoder = load_encoder(find_encoder(manifest.encoder.name, folder))


def _halved(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices in half precision, which keeps three digits; the little else as it is."""
    return {k: v.half() if v.ndim > 1 else v for k, v in tensors.items()}


def _take_pointer(
    model: nn.Module, weights: dict[str, Any] | None
) -> tuple[dict[str, torch.Tensor] | None, dict[str, Any] | None]:
    """The pointer's tensors, detached from a model so that what is left is plain, and its rest."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    pointer = getattr(plain, "pointer", None)
    if pointer is None:
        return None, weights
    del plain.pointer
    if isinstance(model, PeftModel):
        model.peft_config["default"].modules_to_save = None
        # PEFT keeps a trained copy beside the original.
        pointer = pointer.modules_to_save["default"]
    assert isinstance(pointer, Pointer)
    if weights is not None:
        own = {k: v for k, v in weights.items() if ".pointer." in f".{k}"}
        weights = {k: v for k, v in weights.items() if k not in own}
        trained = {k: v for k, v in own.items() if "original_module" not in k}
        whole = Pointer(pointer.hidden, pointer.query.out_features, pointer.lines, pointer.encoder)
        loaded = {
            k.split("pointer.")[-1].removeprefix("modules_to_save.default."): v
            for k, v in trained.items()
        }
        for name, buffer in pointer.named_buffers():  # not cut up, so perhaps not gathered
            loaded.setdefault(name, buffer)
        whole.load_state_dict(loaded)
        pointer = whole
    return pointer.folded(), weights


def _save_adapter(model: PeftModel, folder: Path, weights: dict[str, Any] | None) -> None:
    """The adapter in half precision, which keeps three digits and halves the file."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = ""  # a path of the training machine means nothing elsewhere
    model.save_pretrained(folder, state_dict=weights)
    path = folder / "adapter_model.safetensors"
    save_file({k: v.half() for k, v in load_file(path).items()}, path)
    for path in folder.iterdir():
        if path.name not in (*ADAPTER_FILES, POINTER_FILE):
            path.unlink()


def data_sha256(data: Path) -> str:
    """Hash of the files' hashes, or of the one file."""
    hashes = [file_sha256(path) for path in shards(data)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _data_manifest(data: Path) -> dict[str, Any] | None:
    """Recipe and sources of the data, where `pointsman data` left them beside it."""
    path = data.parent / "dataset.json"
    if not path.is_file():
        return None
    manifest = json.loads(path.read_text(encoding="utf-8"))
    return {"recipe": manifest["recipe"]["name"], "sources": manifest["sources"]}


def _git_commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    found = subprocess.run(
        [git, "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
