"""Train a routing model: a recipe and conversation records in, a checkpoint out."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from routing.layout import Layout, choose_identifiers
from routing.records import read_conversations
from routing.tokenizer import FileTokenizer
from training.checkpoint import load_base, save_checkpoint
from training.examples import Example, encode_all
from training.memory import keep_freed_memory
from training.readout import Pointer, collate, line_states
from training.recipe import RecipeError, TrainRecipe
from training.trainer import RoutingTrainer

STANDARDISE_EXAMPLES = 48
"""Enough for a few hundred lines and turns."""

logger = logging.getLogger(__name__)


def train(
    recipe: TrainRecipe, base: Path, base_revision: str, data: Path, output: Path
) -> Path | None:
    """Run a recipe and return the checkpoint folder, `output/checkpoint`.

    Trainer states go to `output/steps`; a run that was cut off goes on from the last of them. One
    of `recipe.processes` processes writes the checkpoint; the others return None. Raises
    RecipeError where torchrun started another number of them.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != recipe.processes:
        raise RecipeError(f"processes is {recipe.processes}, but {started} were started")
    torch.set_num_threads(recipe.threads)
    keep_freed_memory()
    for key, value in recipe.model_dump().items():
        logger.info("recipe %s = %s", key, value)

    tokenizer = FileTokenizer(base / "tokenizer.json")
    identifiers = (
        choose_identifiers(tokenizer, recipe.identifiers)
        if recipe.read_out == "identifier"
        else None
    )
    layout = Layout(tokenizer, recipe.budget, identifiers, version=recipe.layout_version)
    examples = _examples(recipe, layout, data)

    arguments = _arguments(recipe, output / "steps")
    model = load_base(base, recipe.layers)
    if recipe.lora is None and not recipe.train_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if recipe.read_out == "pointer":
        torch.manual_seed(recipe.seed)
        model.pointer = Pointer(model.config.hidden_size, recipe.pointer_dim, recipe.pointer_lines)
        _standardise(model, examples)

    pad = tokenizer.control("<|im_end|>")
    trainer = RoutingTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        processing_class=AutoTokenizer.from_pretrained(base),
        data_collator=lambda rows: collate([Example(**_fields(row)) for row in rows], pad),
        peft_config=_peft(recipe),
        head_learning_rate=recipe.head_learning_rate,
    )
    resume = get_last_checkpoint(output / "steps") if (output / "steps").is_dir() else None
    trainer.train(resume_from_checkpoint=resume)

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


@torch.inference_mode()
def _standardise(model: Any, examples: Dataset) -> None:
    """Start the pointer from the base model's own states of a few examples."""
    turns: list[torch.Tensor] = []
    lines: list[torch.Tensor] = []
    for row in examples.select(range(min(len(examples), STANDARDISE_EXAMPLES))):
        ids = torch.tensor([row["input_ids"]], device=model.device)
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        turns.append(states[0, row["decisions"]])
        starts, ends = torch.tensor([row["line_starts"]]), torch.tensor([row["line_ends"]])
        lines.append(line_states(states, starts, ends, model.pointer.lines)[0])
    model.pointer.standardise(torch.cat(turns), torch.cat(lines))


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
        gradient_accumulation_steps=recipe.accumulation // recipe.processes,
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
        ddp_backend="gloo" if recipe.processes > 1 and not torch.cuda.is_available() else None,
        ddp_find_unused_parameters=False,
    )
