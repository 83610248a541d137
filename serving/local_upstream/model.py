"""The language model: next tokens, one at a time, from a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from serving.engine.forward import Backbone
from serving.engine.kv_cache import Node, Segment
from serving.engine.linear import Linear
from serving.engine.llama import LlamaBackbone, LlamaShape
from serving.engine.plain import MODEL_PREFIX, read_config
from serving.engine.tensors import TensorFiles
from serving.local_upstream.protocol import Sampling

PREFILL_TOKENS = 256
"""A prompt is read in pieces of this size, so that a cancelled one stops soon."""
LOOSE = 16
"""Pieces of keys and values at most; then they are made one, since each is copied in each layer."""


class LanguageModel:
    """A causal model on the CPU in float32. Used from the thread that made it."""

    def __init__(self, folder: Path, threads: int) -> None:
        # OpenMP's thread count belongs to the thread that sets it.
        torch.set_num_threads(threads)
        config = read_config(folder)
        if LlamaShape.fits(config):
            self._backbone, self._output = _plain(folder, LlamaShape.of(config))
        else:
            self._backbone, self._output, config = _by_transformers(folder)
        self.context = int(config["max_position_embeddings"])
        self._vocabulary = int(config["vocab_size"])

    @torch.inference_mode()  # type: ignore[untyped-decorator, unused-ignore]
    def generate(
        self, prompt: Sequence[int], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[int]:
        """Tokens after `prompt`, without end but for the context's; stops early once cancelled."""
        path: list[Node] = []
        draw = _Draw(sampling, self._vocabulary)
        rest = list(prompt)
        used = 0
        while used < self.context:
            piece, rest = rest[:PREFILL_TOKENS], rest[PREFILL_TOKENS:]
            if cancelled():
                return
            last = [len(piece) - 1]
            states, [read] = self._backbone(path, piece, last, [len(piece)], lambda: None)
            path.append(Node(Segment(None, *read, None), None))
            if len(path) > LOOSE:
                path = [_joined(path)]
            used += len(piece)
            if not rest:
                token = draw(self._output(states)[0])
                yield token
                rest = [token]


def _plain(folder: Path, shape: LlamaShape) -> tuple[Backbone, Linear]:
    files = TensorFiles(folder, [MODEL_PREFIX])
    files.check({**shape.tensors(), shape.output: (shape.vocabulary, shape.hidden)})
    return LlamaBackbone(shape, files), Linear(files(shape.output))


def _by_transformers(folder: Path) -> tuple[Backbone, Linear, Any]:
    # Imported here: that takes seconds, and the base that comes with Pointsman does without.
    from serving.engine.any_model import TransformersBackbone
    from serving.engine.whole import load_causal

    model = load_causal(folder).requires_grad_(False)
    output = model.get_output_embeddings()
    projection = Linear(output.weight, output.bias)
    return TransformersBackbone(model.base_model), projection, model.config.to_dict()


def _joined(path: Sequence[Node]) -> Node:
    """One piece of many."""
    keys = torch.cat([node.segment.keys for node in path], 2)
    values = torch.cat([node.segment.values for node in path], 2)
    return Node(Segment(None, keys, values, None), None)


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
