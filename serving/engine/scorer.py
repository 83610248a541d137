"""Decisions of a loaded checkpoint, one at a time, with everything read before kept in a cache."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from routing.conversation import Conversation
from routing.decision import Decision, decide
from routing.encoder import TEXTS_A_TURN, line_texts, turn_texts
from routing.layout import EncodedTurn, Prompt, RoutePrefix, in_reading_order
from routing.tasks import Route
from serving.engine.base import EngineMetrics
from serving.engine.checkpoint import RoutingModel
from serving.engine.contract import Contract
from serving.engine.forward import Forward
from serving.engine.kv_cache import KvCache, Node, Segment
from serving.engine.prefixes import PrefixMemo


@dataclass(frozen=True, slots=True)
class Read:
    """What a prompt was laid out from."""

    routes: Sequence[Route]
    conversation: Conversation


class Scorer:
    """Reads routes and conversations by the checkpoint's layout; one pass, at most, a decision.

    Not thread-safe: one thread decides. `check` may raise to abandon a running pass.
    """

    def __init__(
        self,
        contract: Contract,
        model: RoutingModel,
        prefixes: PrefixMemo,
        *,
        cache_bytes: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._layout = contract.layout
        self._calibration = contract.manifest.calibration
        self._read_out = model.read_out
        self._embedder = model.embedder
        self._forward = Forward(model.backbone, check)
        self._prefixes = prefixes
        self._cache = KvCache(cache_bytes)
        self._decisions = self._computed = self._cached = 0

    def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        """The decision at the last user turn; raises InvalidRequest without one."""
        read, places = in_reading_order(routes)
        prompt = self._layout.decision_prompt(self._prefixes(read), conversation)
        scores = self._scores(prompt, Read(read, conversation))
        self._decisions += 1
        return decide([route.name for route in routes], scores[places], self._calibration)

    def forget(self) -> None:
        """Empty the caches and zero the counts."""
        self._cache.clear()
        if self._embedder is not None:
            self._embedder.forget()
        self._cache.evictions = 0
        self._decisions = self._computed = self._cached = 0

    def metrics(self) -> EngineMetrics:
        """Counts so far; may be called from any thread."""
        return EngineMetrics(
            decisions=self._decisions,
            tokens_computed=self._computed,
            tokens_cached=self._cached,
            cache_bytes=self._cache.nbytes,
            cache_entries=len(self._cache),
            cache_evictions=self._cache.evictions,
        )

    def _scores(self, prompt: Prompt, read: Read) -> NDArray[Any]:
        prefix = prompt.prefix
        keys: list[Hashable] = [(prefix.tokens, prefix.line_ends)]
        keys += [turn.tokens for turn in prompt.turns]
        path = self._cache.walk(keys)
        self._cached += sum(node.segment.tokens for node in path)
        if len(path) < len(keys):
            segments = self._compute(prompt, path, keys[len(path) :], read)
            self._cache.extend(path, segments)
            scores = segments[-1].memo
        else:
            scores = path[-1].segment.memo
        assert scores is not None  # the last turn is a user's
        return scores

    def _compute(
        self, prompt: Prompt, path: Sequence[Node], keys: Sequence[Hashable], read: Read
    ) -> list[Segment]:
        """Segments of the prompt below `path`, from one pass; user turns carry their scores."""
        # Of the prefix every state is read: a read-out may look at whole lines.
        lines = range(0 if path else len(prompt.prefix.tokens))
        tokens: list[int] = [] if path else list(prompt.prefix.tokens)
        cuts: list[int] = [] if path else [len(tokens)]
        turns = prompt.turns[max(len(path) - 1, 0) :]
        for turn in turns:
            tokens += turn.tokens
            cuts.append(len(tokens))
        turn_cuts = cuts[len(cuts) - len(turns) :]
        ends = [end - 1 for end, turn in zip(turn_cuts, turns, strict=True) if turn.is_user]
        states, pieces = self._forward(path, tokens, [*lines, *ends], cuts)
        self._computed += len(tokens)

        prepared = self._prepared(prompt.prefix, path, states[: len(lines)], read)
        vectors = self._turn_vectors(prompt, turns, read)
        scores = iter(self._read_out.scores(states[len(lines) :], vectors, prepared))
        memos: list[NDArray[Any] | None] = [] if path else [prepared]
        memos += [next(scores).copy() if turn.is_user else None for turn in turns]
        return [
            Segment(key, piece[0], piece[1], memo)
            for key, piece, memo in zip(keys, pieces, memos, strict=True)
        ]

    def _prepared(
        self, prefix: RoutePrefix, path: Sequence[Node], states: NDArray[Any], read: Read
    ) -> NDArray[Any]:
        if not path:
            vectors = self._embedder(line_texts(read.routes)) if self._embedder else None
            return self._read_out.prepare(prefix, states, vectors)
        memo = path[0].segment.memo
        assert memo is not None
        return memo

    def _turn_vectors(
        self, prompt: Prompt, turns: Sequence[EncodedTurn], read: Read
    ) -> NDArray[Any] | None:
        """Vectors [n, 3, encoder] of the user turns among `turns`, if there is an encoder."""
        if self._embedder is None:
            return None
        texts = turn_texts(read.conversation, {turn.message for turn in prompt.turns})
        asked = [text for turn in turns if turn.is_user for text in texts[turn.message]]
        vectors = self._embedder(asked)
        return vectors.reshape(-1, TEXTS_A_TURN, vectors.shape[-1])
