"""Digests of texts that are compared and must not be kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

DIGEST_BYTES = 16


def digest(parts: Iterable[str | bytes]) -> bytes:
    """A strong digest of texts in their order; other texts, or other cuts, have another."""
    found = sha256()  # in hardware nearly everywhere, and so faster than BLAKE2 on long texts
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        # With lengths, or two texts could be cut at another place and look alike.
        found.update(b"%d:" % len(encoded))
        found.update(encoded)
    return found.digest()[:DIGEST_BYTES]


def digest_of_texts(texts: Sequence[str]) -> bytes:
    """As `digest`, of texts alone and in one go: half the time for many short ones."""
    whole = f"{list(map(len, texts))}{''.join(texts)}"
    return sha256(whole.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]
