"""Cached tensors' memory: used again, bounded, and never shared by two at once."""

from __future__ import annotations

import gc
import random

import pytest
import torch

from serving.engine import mapped
from serving.engine.mapped import LEAST_MAPPED, Mappings, empty

MB = 2**20


@pytest.fixture
def mappings(monkeypatch: pytest.MonkeyPatch) -> Mappings:
    made = Mappings(spare=4 * MB)
    monkeypatch.setattr(mapped, "_mappings", made)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_shapes_and_kinds(mappings: Mappings, dtype: torch.dtype) -> None:
    for shape in ((3,), (2, 0, 5), (3, 5, 40_000)):
        found = empty(shape, dtype)
        assert (tuple(found.shape), found.dtype) == (shape, dtype)
        found.fill_(1)


def test_what_was_let_go_is_used_again(mappings: Mappings) -> None:
    first = empty((MB // 4,))
    place = first.data_ptr()
    view = first[10:20]
    del first
    gc.collect()
    assert mappings.spare_bytes == 0  # a view of it is left
    del view
    assert mappings.spare_bytes == MB
    again = empty((MB // 4 - 5000,))  # of nearly its size
    assert again.data_ptr() == place
    assert mappings.spare_bytes == 0
    assert empty((MB // 4,)).data_ptr() != place


def test_spare_memory_is_bounded(mappings: Mappings) -> None:
    del mappings  # by its place in the module
    kept = [empty((n * MB // 4,)) for n in (1, 2, 3, 4, 5)]
    kept.clear()
    assert mapped._mappings.spare_bytes <= 4 * MB


def test_what_is_small_takes_no_mapping(mappings: Mappings) -> None:
    small = empty((LEAST_MAPPED // 4 - 1,))
    del small
    assert mappings.spare_bytes == 0


def test_no_two_share_memory(mappings: Mappings) -> None:
    draw = random.Random(4)
    live: list[tuple[float, torch.Tensor]] = []
    for number in range(400):
        value = float(number)
        live.append((value, empty((draw.randint(70_000, 300_000),)).fill_(value)))
        if len(live) > 12:
            live.pop(draw.randrange(len(live)))
        assert all(bool((tensor == filled).all()) for filled, tensor in live[-3:])
    assert all(bool((tensor == filled).all()) for filled, tensor in live)


@pytest.mark.parametrize("nbytes", [LEAST_MAPPED, LEAST_MAPPED + 1, MB - 1, MB, 3 * MB + 17])
def test_little_of_a_mapping_is_not_used(nbytes: int) -> None:
    size = mapped._size(nbytes)
    assert nbytes <= size <= nbytes * 1.125 + 4096
