"""What property tests of the protocols draw from."""

from __future__ import annotations

from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
INPUTS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=3)
"""Inputs of a turn's tool calls."""


def split(whole: str, data: st.DataObject) -> list[str]:
    """The pieces of a text, in order; some may be empty."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
