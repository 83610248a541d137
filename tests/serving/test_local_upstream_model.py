"""Tokens that the local upstream generates are those that transformers would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Architecture, make_model
from transformers import LlamaConfig, LlamaForCausalLM

from serving.local_upstream.model import LOOSE, PREFILL_TOKENS, LanguageModel
from serving.local_upstream.protocol import Sampling

GREEDY = Sampling(temperature=0.0)


def untied() -> Any:
    torch.manual_seed(4)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=211, initializer_range=0.3, **sizes, **heads)
    return LlamaForCausalLM(config).eval()


def theirs(model: Any, prompt: list[int], found: list[int]) -> list[int]:
    """The likeliest token after the prompt and after each that was found."""
    with torch.no_grad():
        output = model(input_ids=torch.tensor([prompt + found]), logits_to_keep=len(found) + 1)
    likeliest: list[int] = output.logits[0, :-1].argmax(-1).tolist()
    return likeliest


@pytest.mark.parametrize("kind", ["llama", "qwen3", "untied"])
@pytest.mark.parametrize("length", [5, PREFILL_TOKENS + 3])
def test_the_likeliest_tokens(tmp_path: Path, kind: Architecture, length: int) -> None:
    model = untied() if kind == "untied" else make_model(kind, seed=2)
    model.save_pretrained(tmp_path)
    prompt = [7 + n % 190 for n in range(length)]
    found = []
    for token in LanguageModel(tmp_path, 1).generate(prompt, GREEDY, lambda: False):
        found.append(token)
        if len(found) == 2 * LOOSE + 3:
            break
    assert found == theirs(model, prompt, found)


def test_it_ends_with_the_context_and_when_nobody_waits(tmp_path: Path) -> None:
    model = untied()
    model.config.max_position_embeddings = 12
    model.save_pretrained(tmp_path)
    language = LanguageModel(tmp_path, 1)
    assert len(list(language.generate([1] * 8, GREEDY, lambda: False))) == 5
    assert not list(language.generate([1] * 8, GREEDY, lambda: True))
