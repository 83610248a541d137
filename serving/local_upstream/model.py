"""The language model: next tokens, one at a time, from a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging as transformers_logging

from serving.local_upstream.protocol import Sampling

PREFILL_TOKENS = 256
"""A prompt is read in pieces of this size, so that a cancelled one stops soon."""


class LanguageModel:
    """A causal model on the CPU in float32. Used from the thread that made it."""

    def __init__(self, folder: Path, threads: int) -> None:
        # OpenMP's thread count belongs to the thread that sets it.
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()
        self._model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        ).eval()
        self.context = int(self._model.config.max_position_embeddings)

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def generate(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[int]:
        """Tokens after `prompt`, without end but for the context's; stops early once cancelled."""
        cache = DynamicCache(config=self._model.config)
        draw = _Draw(sampling, int(self._model.config.vocab_size))
        rest = list(prompt)
        used = 0
        while used < self.context:
            piece, rest = rest[:PREFILL_TOKENS], rest[PREFILL_TOKENS:]
            if cancelled():
                return
            output = self._model(
                input_ids=torch.tensor([piece]),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            used += len(piece)
            if not rest:
                token = draw(output.logits[0, -1])
                yield token
                rest = [token]


class _Draw:
    """Draws tokens by temperature, nucleus (https://arxiv.org/abs/1904.09751) and penalties."""

    def __init__(self, sampling: Sampling, vocabulary: int) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed % 2**63)
        self._counts = torch.zeros(vocabulary)

    def __call__(self, logits: Any) -> int:
        sampling = self._sampling
        penalty = sampling.frequency_penalty * self._counts
        logits = logits - penalty - sampling.presence_penalty * (self._counts > 0)
        if sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            token = self._sample(torch.softmax(logits / sampling.temperature, dim=-1))
        self._counts[token] += 1
        return token

    def _sample(self, probabilities: Any) -> int:
        if self._sampling.top_p < 1:
            ordered, tokens = probabilities.sort(descending=True)
            # A token stays while those likelier than it have not reached top_p: the first always.
            ordered[ordered.cumsum(dim=-1) - ordered >= self._sampling.top_p] = 0
            return int(tokens[torch.multinomial(ordered, 1, generator=self._generator)])
        return int(torch.multinomial(probabilities, 1, generator=self._generator))
