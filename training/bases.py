"""Base models: loaded whole or by their first layers, or a random tiny twin of one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.utils import is_flash_attn_2_available

from training.recipe import RecipeError, Tiny, TrainRecipe

_CONFIGS = {"llama": LlamaConfig, "qwen3": Qwen3Config, "qwen3_moe": Qwen3MoeConfig}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def load_base(
    folder: Path | str,
    layers: int | None = None,
    *,
    dtype: str = "float32",
    attention: str | None = None,
) -> PreTrainedModel:
    """A base model, of its first `layers` decoder layers alone if that is given."""
    config = AutoConfig.from_pretrained(folder)
    if layers is not None:
        if layers > config.num_hidden_layers:
            raise RecipeError(f"layers: {folder} has {config.num_hidden_layers}, not {layers}")
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=getattr(torch, dtype), **options
    )
    assert isinstance(model, PreTrainedModel)
    return model


def check_base(folder: Path, recipe: TrainRecipe) -> None:
    """Raise RecipeError where a base model is not what its recipe says, before it is loaded."""
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise RecipeError(f"base_model: {folder} lacks {name}")
    found = AutoConfig.from_pretrained(folder).model_type
    if found != recipe.architecture:
        raise RecipeError(f"architecture: {folder} is a {found}, not a {recipe.architecture}")
    if recipe.attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise RecipeError("attention: flash_attention_2 needs a GPU and the package flash-attn")


def make_tiny(folder: Path, recipe: TrainRecipe, tokenizer: Path) -> Path:
    """Write the tiny twin of a recipe's base: its architecture class, few layers, random weights.

    The tokenizer is that of the folder `tokenizer`. Returns `folder`; one that is there is kept.
    """
    assert recipe.tiny is not None
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Every process of a run may come here at once; the first to finish has made it.
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    for name in _TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, part / name)
    vocabulary = AutoConfig.from_pretrained(tokenizer).vocab_size
    config = _CONFIGS[recipe.architecture](**_tiny_shape(recipe.tiny, recipe, vocabulary))
    with torch.random.fork_rng():
        torch.manual_seed(recipe.tiny.seed)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(part)
    try:
        part.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():
            raise
        shutil.rmtree(part)
    return folder


def _tiny_shape(tiny: Tiny, recipe: TrainRecipe, vocabulary: int) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": tiny.hidden,
        "intermediate_size": 2 * tiny.hidden,
        "num_hidden_layers": tiny.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,  # vLLM takes none below
        "max_position_embeddings": max(4096, recipe.budget.max_tokens),
        # Wide enough for a random model's states to depend on all that it reads.
        "initializer_range": 0.15,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": recipe.architecture != "qwen3_moe",
    }
    if recipe.architecture == "qwen3_moe":
        shape |= {
            "num_experts": tiny.experts,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": tiny.hidden,
            "norm_topk_prob": True,
            "mlp_only_layers": [],
        }
    return shape


def flops_per_token(model: PreTrainedModel, *, trained: bool) -> float:
    """FLOPs of one token in forward and backward, without attention over other tokens.

    6 for each active weight of a matrix product (arXiv 2001.08361), or 4 where only adapters are
    trained and weights need no gradient. Of a mixture's experts the active share counts.
    """
    config = model.config
    active = 0.0
    for name, weight in model.named_parameters():
        # Under ZeRO-3 a parameter is empty here, and says its size elsewhere.
        size = getattr(weight, "ds_numel", weight.numel())
        if weight.ndim < 2 or "embed_tokens" in name or "lm_head" in name or "lora_" in name:
            continue
        if ".experts." in name:
            size *= config.num_experts_per_tok / config.num_experts
        active += size
    return (6.0 if trained else 4.0) * active
