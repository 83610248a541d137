"""Train a routing model: a recipe and conversation records in, a checkpoint out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig

from routing.encoder import EncoderTokenizer, find_encoder
from routing.layout import Layout, choose_identifiers
from routing.tokenizer import FileTokenizer
from training.bases import check_base, flops_per_token, load_base
from training.checkpoint import data_sha256, load_head, save_checkpoint
from training.data import Collator, TrainingData, load_data, read_soft_targets
from training.distributed import (
    deepspeed_arguments,
    last_state,
    prepare,
    remember,
    zero_stage,
)
from training.encoder import load_encoder
from training.memory import keep_freed_memory
from training.plan.hardware import peak_flops_of
from training.plan.plan import refuse_what_cannot_fit
from training.readout import Batch, Pointer, features, model_inputs
from training.recipe import RecipeError, TrainRecipe
from training.speed import Meter, StopAfter
from training.start import check_start, load_adapter
from training.trainer import RoutingTrainer, plain_model

STANDARDISE_EXAMPLES = 32
"""Enough for a few hundred lines and a hundred turns."""
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
"""Fused parameters of a mixture's experts, [E, 2I, H] and [E, H, I] (transformers' qwen3_moe)."""

logger = logging.getLogger(__name__)


def train(
    recipe: TrainRecipe,
    base: Path,
    base_revision: str,
    data: Path,
    output: Path,
    deepspeed: Path = Path("configs/deepspeed"),
    callbacks: Sequence[StopAfter] = (),
) -> Path | None:
    """Run a recipe and return the checkpoint folder, `output/checkpoint`.

    Trainer states go to `output/steps`; a run that was cut off goes on from the last of them. The
    first of `recipe.processes` processes writes the checkpoint; the others return None. Raises
    RecipeError and InvalidRecord for what cannot be trained, before anything is written.
    """
    check_base(base, recipe)
    if recipe.start_from is not None:
        check_start(recipe, base)
    tokenizer = FileTokenizer(base / "tokenizer.json")
    identifiers = (
        choose_identifiers(tokenizer, recipe.identifiers)
        if recipe.read_out == "identifier"
        else None
    )
    layout = Layout(tokenizer, recipe.budget, identifiers, version=recipe.layout_version)
    texts = encoder_tokenizer(recipe)
    examples = load_data(recipe, layout, data)
    soft = read_soft_targets(recipe.distillation.targets) if recipe.distillation else {}

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        refuse_what_cannot_fit(
            recipe,
            recipe.processes,
            memory,
            longest=examples.longest,
            base=base,
            deepspeed=deepspeed,
        )
    rank = prepare(recipe)
    torch.set_num_threads(recipe.threads)
    keep_freed_memory()
    remember(recipe, data_sha256(data), output, rank)
    if rank == 0:
        for key, value in recipe.model_dump().items():
            logger.info("recipe %s = %s", key, value)

    # Before the model: under ZeRO-3 it is cut up while it is loaded.
    arguments = _arguments(recipe, output / "steps", deepspeed)
    model = _model(recipe, base)
    collator = Collator(recipe, layout, tokenizer.control("<|im_end|>"), soft, texts)
    full = recipe.lora is None
    meter = Meter(recipe.processes, flops_per_token(model, trained=full), peak_flops())
    for callback in callbacks:
        callback.meter = meter
    trainer = RoutingTrainer(
        model=model,
        args=arguments,
        train_dataset=examples.rows,
        processing_class=AutoTokenizer.from_pretrained(base),
        data_collator=collator,
        peft_config=_peft(recipe),
        recipe=recipe,
        meter=meter,
        callbacks=list(callbacks),
    )
    if recipe.start_from is not None:
        load_adapter(trainer.model, recipe.start_from)
    elif recipe.read_out == "pointer":
        trainer.add_callback(_Standardise(collator, examples, recipe))
    resume = last_state(output / "steps")
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except OSError as error:
        kept = last_state(output / "steps")
        raise RecipeError(
            f"training ended on {error}; the last whole state is {kept or 'none'}, and the same "
            "command goes on from there"
        ) from error

    weights = None
    if zero_stage(arguments) == 3:
        # Every process holds a part of every weight: all must take part in gathering them.
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return None
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return save_checkpoint(
        trainer.accelerator.unwrap_model(trainer.model),
        output / "checkpoint",
        recipe=recipe,
        base=base,
        base_revision=base_revision,
        identifiers=identifiers,
        data=data,
        history=history,
        weights=weights,
    )


def peak_flops() -> float | None:
    """Dense bfloat16 FLOPs a second of this process's GPU, where the table of `plan` knows it."""
    if not torch.cuda.is_available():
        return None
    return peak_flops_of(torch.cuda.get_device_name())


def encoder_tokenizer(recipe: TrainRecipe) -> EncoderTokenizer | None:
    """What lays texts out for the recipe's encoder, if it has one."""
    if recipe.encoder is None:
        return None
    folder = find_encoder(recipe.encoder.name)
    return EncoderTokenizer(folder / "tokenizer.json", recipe.encoder.max_tokens)


def _model(recipe: TrainRecipe, base: Path) -> Any:
    source = base
    if recipe.start_from is not None and recipe.lora is None:
        source = recipe.start_from
    model: Any = load_base(source, recipe.layers, dtype=recipe.dtype, attention=recipe.attention)
    if recipe.lora is None and not recipe.train_embeddings:
        model.get_input_embeddings().requires_grad_(False)
        # Nothing is trained through it: a decision is not a next token.
        if recipe.read_out == "pointer" and model.get_output_embeddings() is not None:
            model.get_output_embeddings().requires_grad_(False)
    if recipe.read_out == "pointer":
        torch.manual_seed(recipe.seed)
        width = 0
        if recipe.encoder is not None:
            model.encoder = load_encoder(find_encoder(recipe.encoder.name, recipe.start_from))
            model.encoder.requires_grad_(recipe.lora is None)
            width = model.encoder.config.hidden_size
        model.pointer = Pointer(
            model.config.hidden_size, recipe.pointer_dim, recipe.pointer_lines, width
        ).to(model.dtype)
        if recipe.start_from is not None:
            load_head(model.pointer, recipe.start_from)
    return model


class _Standardise(TrainerCallback):
    """Starts the pointer from the base model's own states of a few examples."""

    def __init__(self, collator: Collator, data: TrainingData, recipe: TrainRecipe) -> None:
        self._collator = collator
        self._data = data
        self._recipe = recipe

    @torch.no_grad()
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            return  # a resumed run has it in its state
        model = kwargs["model"]
        plain: Any = plain_model(model)
        pointer = plain.pointer
        pointer = (
            pointer.modules_to_save["default"] if hasattr(pointer, "modules_to_save") else pointer
        )
        device = next(model.parameters()).device
        turns: list[torch.Tensor] = []
        lines: list[torch.Tensor] = []
        batches: list[Batch] = []
        # All processes read the same examples, and so start from the same head.
        for record in self._data.records(STANDARDISE_EXAMPLES):
            batch = self._collator([{"record": record.model_dump_json()}])
            batch = Batch({name: value.to(device) for name, value in batch.items()})
            states = model(
                **model_inputs(batch),
                output_hidden_states=True,
                use_cache=False,
                logits_to_keep=1,
            ).hidden_states[-1]
            seen, offered = features(plain, states, batch, self._recipe.pointer_lines)
            turns.append(seen)
            lines.append(offered)
            batches.append(batch)
        masks = [batch["line_mask"] for batch in batches]
        kept = [found[mask] for found, mask in zip(lines, masks, strict=True)]
        pointer.standardise(torch.cat(turns), torch.cat(kept))
        pointer.fit_scale(zip(turns, lines, batches, strict=True))


def _peft(recipe: TrainRecipe) -> LoraConfig | None:
    if recipe.lora is None:
        return None
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=recipe.lora.targets,
        target_parameters=EXPERTS if recipe.lora.experts else None,
        modules_to_save=["pointer"] if recipe.read_out == "pointer" else None,
    )


def _arguments(recipe: TrainRecipe, folder: Path, deepspeed: Path) -> SFTConfig:
    if recipe.tracking == "wandb":
        os.environ.setdefault("WANDB_MODE", "offline")
    return SFTConfig(
        output_dir=str(folder),
        run_name=recipe.name,
        num_train_epochs=recipe.epochs or 1.0,
        max_steps=recipe.max_steps or -1,
        per_device_train_batch_size=recipe.batch_conversations,
        gradient_accumulation_steps=recipe.accumulation // recipe.processes,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        train_sampling_strategy="group_by_length",
        seed=recipe.seed,
        bf16=recipe.dtype == "bfloat16",
        gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        # Examples are laid out already; TRL must neither tokenise nor cut them.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_num_workers=0,
        router_aux_loss_coef=recipe.router_aux_loss,
        logging_steps=recipe.log_every,
        save_steps=recipe.save_every,
        save_total_limit=2,
        report_to="none" if recipe.tracking == "none" else recipe.tracking,
        **deepspeed_arguments(recipe, deepspeed),
    )
