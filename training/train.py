"""Train a routing model: a recipe and conversation records in, a checkpoint out."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from routing.layout import Layout, choose_identifiers
from routing.records import read_conversations
from routing.tokenizer import FileTokenizer
from training.checkpoint import save_checkpoint
from training.examples import Example, encode_all
from training.readout import Pointer, collate
from training.recipe import RecipeError, TrainRecipe
from training.trainer import RoutingTrainer

logger = logging.getLogger(__name__)


def train(recipe: TrainRecipe, base: Path, base_revision: str, data: Path, output: Path) -> Path:
    """Run a recipe and return the checkpoint folder, `output/checkpoint`.

    Trainer states go to `output/steps`; a run that was cut off goes on from the last of them.
    """
    torch.set_num_threads(recipe.threads)
    for key, value in recipe.model_dump().items():
        logger.info("recipe %s = %s", key, value)

    tokenizer = FileTokenizer(base / "tokenizer.json")
    identifiers = (
        choose_identifiers(tokenizer, recipe.identifiers)
        if recipe.read_out == "identifier"
        else None
    )
    layout = Layout(tokenizer, recipe.budget, identifiers)
    examples = _examples(recipe, layout, data)

    arguments = _arguments(recipe, output / "steps")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if recipe.read_out == "pointer":
        torch.manual_seed(recipe.seed)
        model.pointer = Pointer(model.config.hidden_size, recipe.pointer_dim)

    pad = tokenizer.control("<|im_end|>")
    trainer = RoutingTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        processing_class=AutoTokenizer.from_pretrained(base),
        data_collator=lambda rows: collate([Example(**_fields(row)) for row in rows], pad),
        peft_config=_peft(recipe),
    )
    resume = get_last_checkpoint(output / "steps") if (output / "steps").is_dir() else None
    trainer.train(resume_from_checkpoint=resume)

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
    )


def _examples(recipe: TrainRecipe, layout: Layout, data: Path) -> Dataset:
    """All examples, shuffled by the recipe's seed, with a length for grouping."""
    seed = recipe.seed if recipe.read_out == "identifier" else None
    examples = list(encode_all(layout, read_conversations(data), seed=seed))
    if not examples:
        raise RecipeError(f"{data} holds no decisions")
    random.Random(recipe.seed).shuffle(examples)
    wanted = recipe.max_steps * recipe.accumulation * recipe.batch_conversations
    if wanted > len(examples):
        logger.warning("%d examples for %d places: some are seen again", len(examples), wanted)
    examples = examples[:wanted]
    tokens = sum(example.length for example in examples)
    decisions = sum(len(example.decisions) for example in examples)
    logger.info("%d examples, %d decisions, %d tokens", len(examples), decisions, tokens)
    return Dataset.from_list([{**vars(example), "length": example.length} for example in examples])


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "length"}


def _peft(recipe: TrainRecipe) -> LoraConfig | None:
    if recipe.lora is None:
        return None
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=recipe.lora.targets,
        modules_to_save=["pointer"] if recipe.read_out == "pointer" else None,
    )


def _arguments(recipe: TrainRecipe, folder: Path) -> SFTConfig:
    return SFTConfig(
        output_dir=str(folder),
        max_steps=recipe.max_steps,
        per_device_train_batch_size=recipe.batch_conversations,
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        train_sampling_strategy="group_by_length",
        seed=recipe.seed,
        bf16=False,
        gradient_checkpointing=False,
        # Examples are laid out already; TRL must neither tokenise nor cut them.
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_num_workers=0,
        logging_steps=5,
        save_steps=recipe.save_every,
        save_total_limit=2,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
    )
