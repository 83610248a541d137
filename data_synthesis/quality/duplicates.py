"""Exact and near duplicates among conversations, in memory that does not grow.

What users say is cut into word shingles and sketched by MinHash (Broder 1997, `datasketch`). The
bands go into a table of fixed size: a conversation that shares a whole band with an earlier
one is dropped as its near duplicate. Equal conversations share all bands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from data_synthesis.recipe import Duplicates

Bands = NDArray[np.uint64]
_WORDS = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Words of a text, case and punctuation aside."""
    return _WORDS.findall(text.casefold())


class Sketcher:
    """Bands of a conversation's MinHash sketch."""

    def __init__(self, settings: Duplicates) -> None:
        self._settings = settings
        self._empty = MinHash(num_perm=settings.bands * settings.rows, seed=1)

    def __call__(self, texts: Iterable[str]) -> Bands:
        """One hash a band, for the texts of one conversation's user lines."""
        size = self._settings.shingle
        shingles: set[bytes] = set()
        for text in texts:
            found = words(text)
            for i in range(max(1, len(found) - size + 1)):
                shingles.add(" ".join(found[i : i + size]).encode())
        sketch = self._empty.copy()
        sketch.update_batch(sorted(shingles))
        rows = sketch.hashvalues.reshape(self._settings.bands, self._settings.rows)
        # A polynomial over a band's values, so that equal bands and only those get equal hashes.
        factors = np.power(
            np.uint64(6364136223846793005), np.arange(rows.shape[1], dtype=np.uint64)
        )
        hashes = (rows.astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
        salt = np.arange(1, len(hashes) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return np.asarray(hashes ^ salt, dtype=np.uint64)


class SeenBands:
    """Bands seen so far, in a table of fixed size where new ones push out old ones."""

    def __init__(self, slots: int) -> None:
        self._table = np.zeros(slots, dtype=np.uint64)

    def __contains__(self, bands: Bands) -> bool:
        return bool((self._table[self._places(bands)] == bands).any())

    def add(self, bands: Bands) -> None:
        self._table[self._places(bands)] = bands

    def add_all(self, many: Sequence[Bands] | NDArray[np.uint64]) -> None:
        for bands in many:
            self.add(bands)

    def _places(self, bands: Bands) -> NDArray[np.intp]:
        return np.asarray((bands >> np.uint64(7)) % np.uint64(len(self._table)), dtype=np.intp)
