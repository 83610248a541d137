"""The sentence encoder in torch; its contract is in `routing.encoder`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from routing.encoder import EncoderTokenizer

CHUNK = 32
"""Texts of one pass: enough for the matrix products, few enough to be of about one length."""


def load_encoder(folder: Path) -> PreTrainedModel:
    """A BERT-like encoder without a pooling layer, in float32."""
    # Dropout would make a resumed run differ, and a few thousand steps hardly overfit an adapter.
    encoder = AutoModel.from_pretrained(
        folder,
        add_pooling_layer=False,
        dtype=torch.float32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    assert isinstance(encoder, PreTrainedModel)
    return encoder


def text_batch(
    tokenizer: EncoderTokenizer,
    turns: Iterable[Sequence[str]],
    lines: Iterable[Sequence[str]],
    width: int,
) -> dict[str, Tensor]:
    """Texts of D decisions and of their lines, each of them once.

    encoder_ids, encoder_mask [N, T]; turn_texts [D, 3], line_texts [D, width]: rows of those, where
    N stands for no text.
    """
    rows: dict[str, int] = {}

    def row(text: str) -> int:
        return rows.setdefault(text, len(rows)) if text else -1

    turn_rows = [[row(text) for text in texts] for texts in turns]
    line_rows = [[row(text) for text in texts] + [-1] * (width - len(texts)) for texts in lines]
    tokens = [tokenizer(text) for text in rows]
    longest = max(map(len, tokens))
    ids = torch.tensor([[*each, *[0] * (longest - len(each))] for each in tokens])
    mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in tokens])
    turn_rows_ = torch.tensor(turn_rows) % (len(rows) + 1)
    line_rows_ = torch.tensor(line_rows) % (len(rows) + 1)
    return {
        "encoder_ids": ids,
        "encoder_mask": mask,
        "turn_texts": turn_rows_,
        "line_texts": line_rows_,
    }


def embed(encoder: torch.nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Unit vectors [N + 1, E] of texts [N, T]: means over their tokens, and zeros for no text."""
    order = mask.sum(1).argsort()
    found: list[Tensor] = []
    for chunk in order.split(CHUNK):
        kept = mask[chunk]
        longest = int(kept.sum(1).max())
        kept = kept[:, :longest]
        states = encoder(input_ids=ids[chunk, :longest], attention_mask=kept).last_hidden_state
        weights = kept[..., None].to(states.dtype)
        found.append(F.normalize((states * weights).sum(1) / weights.sum(1), dim=-1))
    vectors = torch.cat(found)[order.argsort()]
    return torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])])
