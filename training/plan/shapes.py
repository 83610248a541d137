"""Shapes of base models and the parameter counts that follow from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.recipe import RecipeError, TrainRecipe


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of llama's, Qwen3's or Qwen3-MoE's kind; counts are of parameters."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Inner width of a dense layer's MLP, or of one expert."""
    vocabulary: int
    tied: bool
    """Whether the output embeddings are the input embeddings."""
    experts: int = 0
    """Of each layer; 0 for a dense model."""
    experts_active: int = 0
    qk_norm: bool = False

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def table(self) -> int:
        """One table of token embeddings."""
        return self.vocabulary * self.hidden

    @property
    def embeddings(self) -> int:
        return self.table if self.tied else 2 * self.table

    @property
    def expert(self) -> int:
        """One expert, or the MLP of a dense layer."""
        return 3 * self.hidden * self.intermediate

    @property
    def layer_experts(self) -> int:
        return self.experts * self.expert

    @property
    def moe_block(self) -> int:
        """Experts and router of one layer, which ZeRO-3 gathers at once; 0 for a dense model."""
        return self.layer_experts + self.hidden * self.experts

    @property
    def attention(self) -> int:
        """Matrices of one layer's attention."""
        return 2 * self.hidden * (self.query + self.key)

    @property
    def layer(self) -> int:
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        return self.attention + norms + (self.moe_block if self.experts else self.expert)

    @property
    def total(self) -> int:
        return self.layers * self.layer + self.embeddings + self.hidden

    @property
    def expert_total(self) -> int:
        return self.layers * self.layer_experts

    @property
    def active_experts(self) -> int:
        """Of all layers, what one token meets of the experts, or of the dense MLPs."""
        return self.layers * (self.experts_active or 1) * self.expert

    @property
    def active_body(self) -> int:
        """Weights of the layers' matrix products that one token takes part in."""
        return self.layers * (self.attention + self.hidden * self.experts) + self.active_experts

    @property
    def active(self) -> int:
        """`active_body` and the output embeddings, as prime-rl and the papers count it.

        Input embeddings, which are looked up, and norms are left out: 3.04B for Qwen3-30B-A3B.
        """
        return self.active_body + self.table

    def keep(self, layers: int | None) -> Shape:
        """The same with its first `layers` layers only; raises RecipeError for more than it has."""
        if layers is None:
            return self
        if layers > self.layers:
            raise RecipeError(f"layers: {self.name} has {self.layers}, not {layers}")
        return replace(self, layers=layers)

    def lora(self, r: int, targets: Sequence[str]) -> int:
        """Parameters of adapters of rank `r` on linear layers; raises RecipeError for others."""
        sides = {
            "q_proj": self.hidden + self.query,
            "k_proj": self.hidden + self.key,
            "v_proj": self.hidden + self.key,
            "o_proj": self.query + self.hidden,
        }
        if not self.experts:
            sides |= dict.fromkeys(
                ("gate_proj", "up_proj", "down_proj"), self.hidden + self.intermediate
            )
        chosen = list(sides) if list(targets) == ["all-linear"] else list(targets)
        unknown = [name for name in chosen if name not in sides]
        if unknown:
            raise RecipeError(f"lora.targets: {self.name} has no linear layer {unknown[0]}")
        return self.layers * r * sum(sides[name] for name in chosen)

    def lora_experts(self, r: int) -> int:
        """Parameters of adapters on the fused `gate_up_proj` and `down_proj` of all experts."""
        each = (self.hidden + 2 * self.intermediate) + (self.intermediate + self.hidden)
        return self.layers * self.experts * r * each


_SMOLLM2_135M = Shape(
    name="SmolLM2-135M-Instruct",
    layers=30,
    hidden=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    intermediate=1536,
    vocabulary=49_152,
    tied=True,
)
_QWEN3_4B = Shape(
    name="Qwen/Qwen3-4B-Instruct-2507",
    layers=36,
    hidden=2560,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate=9728,
    vocabulary=151_936,
    tied=True,
    qk_norm=True,
)
_QWEN3_30B_A3B = Shape(
    name="Qwen/Qwen3-30B-A3B-Instruct-2507",
    layers=48,
    hidden=2048,
    heads=32,
    kv_heads=4,
    head_dim=128,
    intermediate=768,
    vocabulary=151_936,
    tied=False,
    experts=128,
    experts_active=8,
    qk_norm=True,
)
KNOWN = {shape.name: shape for shape in (_SMOLLM2_135M, _QWEN3_4B, _QWEN3_30B_A3B)}
"""Bases of the recipes, from their config.json."""


def shape_of(base: str) -> Shape:
    """Shape of a known base, or of the model in a folder; raises RecipeError for others."""
    if base in KNOWN:
        return KNOWN[base]
    path = Path(base) / "config.json"
    if not path.is_file():
        known = ", ".join(KNOWN)
        raise RecipeError(
            f"base_model: the shape of {base} is not known; give a folder with a config.json, "
            f"or one of {known}"
        )
    return _read(base, path)


def recipe_shape(recipe: TrainRecipe, base: Path | None = None) -> Shape:
    """Shape that a recipe trains: of its kept layers, or of its tiny twin.

    `base` is the folder of the base model, where that is there already.
    """
    if recipe.tiny is None:
        return shape_of(str(base or recipe.base_model)).keep(recipe.layers)
    tiny, mixture = recipe.tiny, recipe.architecture == "qwen3_moe"
    return Shape(  # as `training.bases` makes it, with SmolLM2's tokenizer
        name=f"tiny {recipe.architecture}",
        layers=tiny.layers,
        hidden=tiny.hidden,
        heads=4,
        kv_heads=2,
        head_dim=32,
        intermediate=tiny.hidden if mixture else 2 * tiny.hidden,
        vocabulary=49_152,
        tied=not mixture,
        experts=tiny.experts if mixture else 0,
        experts_active=2 if mixture else 0,
        qk_norm=recipe.architecture != "llama",
    ).keep(recipe.layers)


def _read(name: str, path: Path) -> Shape:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind = config["model_type"]
        if kind not in ("llama", "qwen3", "qwen3_moe"):
            raise RecipeError(f"base_model: {path}: no plan is made for a {kind}")
        mixture = kind == "qwen3_moe"
        if mixture and (config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1):
            raise RecipeError(f"base_model: {path}: some layers have no experts")
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return Shape(
            name=name,
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["moe_intermediate_size" if mixture else "intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            experts=int(config["num_experts"]) if mixture else 0,
            experts_active=int(config["num_experts_per_tok"]) if mixture else 0,
            qk_norm=kind != "llama",
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, RecipeError):  # is a ValueError too
            raise
        raise RecipeError(f"base_model: cannot read {path}: {error!r}") from None
