"""Going on from a checkpoint: a release that is to learn a team's own tasks, or more of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoConfig

from routing.errors import UnsupportedCheckpoint
from routing.manifest import Manifest, PointerReadOut, load_manifest
from training.checkpoint import ADAPTER_FILES
from training.recipe import RecipeError, TrainRecipe


def check_start(recipe: TrainRecipe, base: Path) -> None:
    """Raise RecipeError where a recipe cannot go on from the checkpoint it names.

    What training and serving agree on must be the same in both, or what was learnt would be read in
    another way; data, rates and steps may differ.
    """
    folder = recipe.start_from
    assert folder is not None
    try:
        manifest = load_manifest(folder)
    except UnsupportedCheckpoint as error:
        raise RecipeError(f"start_from: {error}") from None
    read_out = manifest.read_out
    found = {
        "weights": manifest.weights,
        "layout_version": manifest.layout_version,
        "read_out": read_out.kind,
        "hidden size": manifest.base.hidden_size,
        "encoder": manifest.encoder.name if manifest.encoder else None,
        **_adapter_sizes(manifest, folder),
    }
    wanted: dict[str, Any] = {
        "weights": "merged" if recipe.lora is None else "adapter",
        "layout_version": recipe.layout_version,
        "read_out": recipe.read_out,
        "hidden size": AutoConfig.from_pretrained(base).hidden_size,
        "encoder": recipe.encoder.name if recipe.encoder else None,
    }
    if recipe.lora is not None:
        wanted |= {"base_model": recipe.base_model, "layers": recipe.layers}
    if isinstance(read_out, PointerReadOut):
        found |= {"pointer_dim": read_out.dim, "pointer_lines": read_out.lines}
        wanted |= {"pointer_dim": recipe.pointer_dim, "pointer_lines": recipe.pointer_lines}
    for name, value in wanted.items():
        if found[name] != value:
            raise RecipeError(f"start_from: {folder} has {name} {found[name]}, the recipe {value}")


def _adapter_sizes(manifest: Manifest, folder: Path) -> dict[str, Any]:
    if manifest.weights == "merged":
        return {}
    name = manifest.base.name
    # A tiny twin's base is random, made anew from its recipe, and named after its architecture.
    base = manifest.provenance.get("recipe", {}).get("base_model", name)
    return {"base_model": base, "layers": manifest.base.layers}


def load_adapter(model: Any, folder: Path) -> None:
    """Put a checkpoint's adapter on a model that PEFT has wrapped; raises RecipeError."""
    if not isinstance(model, PeftModel):
        return
    stored = load_file(folder / ADAPTER_FILES[1])
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    odd = sorted({name for name in own if ".pointer." not in name} ^ set(stored))
    if odd:
        raise RecipeError(
            f"start_from: the adapter of {folder} does not fit the recipe's: {len(odd)} weights "
            f"without counterpart, {odd[0]} among them"
        )
    try:
        # The pointer is a file of its own, and in the model already.
        set_peft_model_state_dict(model, {**own, **stored})
    except RuntimeError as error:
        raise RecipeError(f"start_from: the adapter of {folder} does not fit: {error}") from None
