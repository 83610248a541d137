"""A checkpoint whose pointer reads a sentence encoder's vectors: trained, gone on from, served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from routing_data import records
from safetensors.torch import load_file
from tiny import copy_tokenizer, make_model
from transformers import BertConfig, BertModel

from routing.conversation import Conversation, Turn, normalise
from routing.encoder import EncoderTokenizer, find_encoder, line_texts, turn_texts
from routing.errors import UnsupportedCheckpoint
from routing.manifest import load_manifest
from routing.records import ConversationRecord
from routing.tasks import Route
from serving.engine.checkpoint import load_model
from serving.engine.contract import read_contract
from serving.engine.prefixes import PrefixMemo
from serving.engine.scorer import Scorer
from training.export import agreement, export
from training.recipe import RecipeError, TrainRecipe
from training.scoring import ModelDecider
from training.train import train

ENCODER = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_model("llama", seed=0).save_pretrained(folder)
    copy_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder with the real one's tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer = find_encoder(ENCODER) / "tokenizer.json"
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    path.write_text("".join(record.model_dump_json() + "\n" for record in records(24)))
    return path


def recipe(folder: Path, /, **updates: Any) -> TrainRecipe:
    targets = ["q_proj", "v_proj", "self.query", "output.dense"]
    values: dict[str, Any] = {
        "name": "tiny",
        "base_model": "tiny",
        "layout_version": 2,
        "pointer_lines": "mean",
        "pointer_dim": 64,
        "encoder": {"name": str(folder), "max_tokens": 32},
        "lora": {"r": 4, "alpha": 8, "targets": targets},
        "batch_conversations": 4,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "warmup_steps": 1,
    }
    return TrainRecipe.model_validate({**values, **updates})


def asked(record: ConversationRecord, message: int) -> Conversation:
    return normalise(record.messages[: message + 1])


@pytest.mark.parametrize("lora", [True, False])
def test_training_evaluation_engine_and_export_decide_alike(
    base: Path, encoder: Path, data: Path, tmp_path: Path, lora: bool
) -> None:
    updates: dict[str, Any] = {} if lora else {"lora": None, "learning_rate": 1e-3}
    checkpoint = train(recipe(encoder, **updates), base, "test", data, tmp_path / "run")
    assert checkpoint is not None
    manifest = load_manifest(checkpoint)
    assert manifest.encoder is not None
    assert (manifest.encoder.hidden_size, manifest.encoder.max_tokens) == (32, 32)
    if lora:
        learnt = load_file(checkpoint / "adapter_model.safetensors")
        parts = [k for k in learnt if ".encoder.encoder.layer." in k and ".lora_B." in k]
        assert parts
        assert all(learnt[name].abs().max() > 0 for name in parts)

    own = base if lora else None
    known = records(6)
    expected = list(ModelDecider.from_checkpoint(checkpoint, own).decide_all(known))
    folder = tmp_path / "export"
    export(checkpoint, own, folder)
    assert (folder / "encoder" / "model.safetensors").is_file()
    exported = list(ModelDecider.from_checkpoint(folder, None).decide_all(known))
    flat = [decision for each in expected for decision in each]
    again = agreement("export", flat, [decision for each in exported for decision in each])
    assert again.same_choice == 1
    assert again.largest_difference < 1e-4

    for place, weights in ((checkpoint, own), (folder, None)):
        contract = read_contract(place)
        model = load_model(contract, weights)
        scorer = Scorer(contract, model, PrefixMemo(contract.layout), cache_bytes=2**28)
        decided = [
            scorer.decide(record.routes, asked(record, label.message))
            for record in known
            for label in record.decisions
        ]
        found = agreement("engine", flat, decided)
        assert found.same_choice == 1
        assert found.largest_difference < 1e-4


def test_the_encoder_counts(base: Path, encoder: Path, data: Path, tmp_path: Path) -> None:
    checkpoint = train(recipe(encoder), base, "test", data, tmp_path)
    assert checkpoint is not None
    contract = read_contract(checkpoint)
    model = load_model(contract, base)
    assert model.embedder is not None
    vectors = model.embedder(["send it again", "", "send it again"])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert np.linalg.norm(vectors[0]) == pytest.approx(1, abs=1e-5)
    assert not vectors[1].any()
    record = records(1)[0]
    one = asked(record, record.decisions[0].message)
    memo = PrefixMemo(contract.layout)
    with_it = Scorer(contract, model, memo, cache_bytes=0).decide(record.routes, one)
    model.embedder._compute = lambda texts: [np.ones(32, np.float32) / 32**0.5 for _ in texts]
    model.embedder._kept.clear()
    without = Scorer(contract, model, memo, cache_bytes=0).decide(record.routes, one)
    assert with_it.distribution != without.distribution


@pytest.mark.parametrize("lora", [True, False])
def test_training_goes_on_from_a_checkpoint(
    base: Path, encoder: Path, data: Path, tmp_path: Path, lora: bool
) -> None:
    updates: dict[str, Any] = {} if lora else {"lora": None}
    first = train(
        recipe(encoder, learning_rate=1e-3, **updates), base, "test", data, tmp_path / "first"
    )
    assert first is not None
    on = recipe(encoder, start_from=first, learning_rate=1e-9, **updates)
    second = train(on, base, "test", data, tmp_path / "second")
    assert second is not None
    own = base if lora else None
    known = records(4)
    one, other = (
        [d for each in ModelDecider.from_checkpoint(c, own).decide_all(known) for d in each]
        for c in (first, second)
    )
    # At next to no rate nothing is learnt, and what had been learnt is all there.
    assert agreement("second", one, other).largest_difference < 2e-3


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"layout_version": 1}, "has layout_version 2, the recipe 1"),
        ({"pointer_dim": 48}, "has pointer_dim 64, the recipe 48"),
        ({"lora": None}, "has weights adapter, the recipe merged"),
        ({"encoder": None}, "has encoder .*, the recipe None"),
        ({"layers": 1}, "has layers None, the recipe 1"),
        ({"lora": {"r": 4, "alpha": 8, "targets": ["q_proj"]}}, "does not fit the recipe's"),
        ({"lora": {"r": 8, "alpha": 8, "targets": ["q_proj"]}}, "does not fit"),
    ],
)
def test_a_start_of_another_shape_is_refused(
    base: Path,
    encoder: Path,
    data: Path,
    started: Path,
    tmp_path: Path,
    updates: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(RecipeError, match=message):
        train(recipe(encoder, start_from=started, **updates), base, "test", data, tmp_path)


@pytest.fixture(scope="module")
def started(
    base: Path, encoder: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    checkpoint = train(
        recipe(encoder, max_steps=1), base, "test", data, tmp_path_factory.mktemp("started")
    )
    assert checkpoint is not None
    return checkpoint


def test_a_start_that_is_no_checkpoint_is_refused(
    base: Path, encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"start_from: .*is no checkpoint"):
        train(recipe(encoder, start_from=tmp_path), base, "test", tmp_path, tmp_path / "run")


def test_an_encoder_needs_the_pointer(encoder: Path) -> None:
    with pytest.raises(ValueError, match="need the pointer read-out"):
        recipe(encoder, read_out="identifier")


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(UnsupportedCheckpoint, match="'nothing' is no folder with a model"):
        find_encoder("nothing")


def test_texts_of_a_turn_are_its_own_and_the_two_before() -> None:
    conversation = Conversation(
        (
            Turn("system", "Be brief.", 0),
            Turn("user", "one", 1),
            Turn("assistant", "two", 2),
            Turn("tool", "result", 3),
            Turn("assistant", "three", 4),
            Turn("user", "four", 5),
            Turn("user", "five", 6),
        )
    )
    every = range(7)
    assert turn_texts(conversation, every) == {
        1: ("one", "", ""),
        5: ("four", "three", "one"),
        6: ("five", "", "four"),
    }
    # What was trimmed off the sequence is not read either.
    assert turn_texts(conversation, {5, 6})[5] == ("four", "", "")


def test_lines_are_words_and_none_has_one() -> None:
    texts = line_texts([Route(name="order_status", description="Where an order is.")])
    assert texts[0] == "order status: Where an order is."
    assert texts[1].startswith("none: ")


def test_long_texts_keep_head_and_tail() -> None:
    tokenizer = EncoderTokenizer(find_encoder(ENCODER) / "tokenizer.json", 16)
    short = tokenizer("hello there")
    words = tokenizer("begin " + "middle " * 100_000 + "end")
    assert short[0] == words[0]
    assert short[-1] == words[-1]
    assert len(words) == 16
    assert words[1] == tokenizer("begin")[1]
    assert words[-2] == tokenizer("end")[1]
