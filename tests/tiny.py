"""Maker of tiny, random, untrained checkpoints: right in every file, good for mechanics only."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from routing.layout import Budget, choose_identifiers
from routing.manifest import (
    BaseModelRef,
    IdentifierReadOut,
    Manifest,
    PointerReadOut,
    file_sha256,
)
from routing.pointer import POINTER_FILE, LineState
from routing.tokenizer import FileTokenizer
from scripts.base_model import NANO_BASE, ensure_base
from training.checkpoint import write_index

Architecture = Literal["llama", "qwen3", "qwen3_moe"]
HIDDEN, VOCABULARY, DIM = 64, 49152, 32
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class TinyCheckpoint:
    """A checkpoint folder and, for an adapter, the folder of its base."""

    folder: Path
    base: Path | None


def make_checkpoint(
    folder: Path,
    *,
    architecture: Architecture = "llama",
    read_out: Literal["pointer", "identifier"] = "pointer",
    weights: Literal["merged", "adapter"] = "merged",
    adapter_dtype: torch.dtype = torch.float32,
    budget: Budget | None = None,
    layout_version: int = 1,
    lines: LineState = "end",
    seed: int = 0,
) -> TinyCheckpoint:
    """Write a complete checkpoint into `folder`, an adapter's base beside it; the same for a seed.

    The tokenizer is SmolLM2's own. The model has 2 layers and hidden size 64.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(architecture, seed)
    copy_tokenizer(folder)
    base: Path | None = None
    if weights == "merged":
        model.save_pretrained(folder)
        write_index(folder)
        files = ["config.json", "model.safetensors", "tokenizer.json"]
    else:
        base = folder.with_name(folder.name + "-base")
        model.save_pretrained(base)
        _save_adapter(model, folder, adapter_dtype, seed)
        files = ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]
    chosen: PointerReadOut | IdentifierReadOut
    if read_out == "pointer":
        _save_pointer(folder, seed)
        files.append(POINTER_FILE)
        chosen = PointerReadOut(dim=DIM, lines=lines)
    else:
        tokenizer = FileTokenizer(folder / "tokenizer.json")
        chosen = IdentifierReadOut(identifiers=choose_identifiers(tokenizer, 32))
    Manifest(
        name=f"tiny-{architecture}-{read_out}",
        base=BaseModelRef(
            name=f"tiny-{architecture}",
            revision=str(seed),
            hidden_size=HIDDEN,
            vocabulary=VOCABULARY,
        ),
        weights=weights,
        layout_version=layout_version,
        read_out=chosen,
        budget=budget or Budget(),
        files={name: file_sha256(folder / name) for name in files},
    ).save(folder)
    return TinyCheckpoint(folder, base)


def make_model(architecture: Architecture, seed: int) -> Any:
    """A random causal model; weights are wide, so that every token read changes the states."""
    torch.manual_seed(seed)
    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "initializer_range": 0.15,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "tie_word_embeddings": True,
    }
    if architecture == "llama":
        return LlamaForCausalLM(LlamaConfig(**common)).eval()
    if architecture == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**common)).eval()
    moe = Qwen3MoeConfig(
        **common, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, mlp_only_layers=[]
    )
    return Qwen3MoeForCausalLM(moe).eval()


def copy_tokenizer(folder: Path) -> None:
    """SmolLM2's tokenizer files, from the base model's cache folder."""
    source = ensure_base(NANO_BASE)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _save_adapter(model: Any, folder: Path, dtype: torch.dtype, seed: int) -> None:
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:  # the B matrices begin as zeros: such an adapter would change nothing
            parameter.data = torch.randn(parameter.shape, generator=generator).mul_(0.2).to(dtype)
    adapted.save_pretrained(folder)


def _save_pointer(folder: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    save_file(
        {
            "query.weight": generator.normal(size=(DIM, HIDDEN)).astype(np.float32),
            "key.weight": generator.normal(size=(DIM, HIDDEN)).astype(np.float32),
            "log_scale": np.array(np.log(10.0), dtype=np.float32),
        },
        folder / POINTER_FILE,
    )
