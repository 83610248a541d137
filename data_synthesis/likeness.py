"""Likeness of texts by the words they share: cosine of TF-IDF vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW = 50
"""Below so many texts, how many of them hold a word says nothing about the word."""


def likeness(
    texts: Sequence[str], others: Sequence[str] | None = None, *, common: float, rare: int = 1
) -> NDArray[np.float32]:
    """Cosines of texts [N] with others [M], or with themselves: [N, M].

    Words in more than the share `common` of the texts, or in fewer than `rare` of them, are left
    out.
    """
    # Seconds to import, which most that import this module never need.
    from sklearn.feature_extraction.text import TfidfVectorizer

    few = len(texts) < FEW
    vectorizer = TfidfVectorizer(
        sublinear_tf=True,
        stop_words="english",
        max_df=1.0 if few else common,
        min_df=1 if few else rare,
        dtype=np.float32,
    )
    vectors = vectorizer.fit_transform(texts)
    against = vectors if others is None else vectorizer.transform(others)
    return np.asarray((vectors @ against.T).toarray(), dtype=np.float32)
