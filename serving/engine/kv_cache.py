"""Keys and values of segments already read, as a trie, least recently used out first.

The root's children are routers' prefixes, below them hang conversation turns. A node owns the keys
and values of its own segment only, so conversations of one router share its prefix, and branches of
one conversation share its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(slots=True)
class Segment:
    """What was computed for one segment."""

    key: Hashable
    keys: Any
    """Tensor [layers, heads, tokens, head_dim] that owns its memory."""
    values: Any
    memo: NDArray[Any] | None
    """Of a prefix what the read-out prepared, of a user turn its scores."""

    @property
    def tokens(self) -> int:
        return int(self.keys.shape[-2])

    @property
    def nbytes(self) -> int:
        memo = 0 if self.memo is None else self.memo.nbytes
        # Of storage, which may be larger than the tensor in it.
        stored = sum(int(each.untyped_storage().nbytes()) for each in (self.keys, self.values))
        return stored + memo


@dataclass(slots=True, eq=False)
class Node:
    """A cached segment at its place in the trie."""

    segment: Segment
    parent: Node | None
    children: dict[Hashable, Node] = field(default_factory=dict)


class KvCache:
    """A trie of segments within `capacity` bytes of tensors. Not thread-safe.

    A node is always used after its descendants are, so the oldest node is always a leaf.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.nbytes = 0
        self.evictions = 0
        self._roots: dict[Hashable, Node] = {}
        self._age: OrderedDict[Node, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._age)

    def walk(self, keys: Sequence[Hashable]) -> list[Node]:
        """The longest cached path along `keys`, marked as just used."""
        path: list[Node] = []
        children = self._roots
        for key in keys:
            node = children.get(key)
            if node is None:
                break
            path.append(node)
            children = node.children
        for node in reversed(path):
            self._age.move_to_end(node)
        return path

    def extend(self, path: Sequence[Node], segments: Sequence[Segment]) -> None:
        """Hang `segments`, one below the other, under the path that `walk` just returned.

        Room is made first; what does not fit beside the path itself is left out from its end.
        """
        kept = list(segments)
        need = sum(segment.nbytes for segment in kept)
        while self.nbytes + need > self.capacity and kept:
            oldest = next(iter(self._age), None)
            if oldest is None or (path and oldest is path[-1]):
                need -= kept.pop().nbytes
            else:
                self._evict(oldest)
        parent = path[-1] if path else None
        added: list[Node] = []
        for segment in kept:
            node = Node(segment, parent)
            self._children(parent)[segment.key] = node
            self.nbytes += segment.nbytes
            added.append(node)
            parent = node
        for node in [*reversed(added), *reversed(path)]:
            self._age[node] = None
            self._age.move_to_end(node)

    def clear(self) -> None:
        """Forget everything."""
        self._roots.clear()
        self._age.clear()
        self.nbytes = 0

    def _evict(self, leaf: Node) -> None:
        assert not leaf.children
        del self._age[leaf]
        del self._children(leaf.parent)[leaf.segment.key]
        self.nbytes -= leaf.segment.nbytes
        self.evictions += 1

    def _children(self, parent: Node | None) -> dict[Hashable, Node]:
        return self._roots if parent is None else parent.children
