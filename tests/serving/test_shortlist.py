"""More routes than the model reads: an encoder picks which, and the answer is over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from serving_fakes import FakeEngine
from test_engine import say

from routing.errors import InvalidRequest, RoutesTooLong
from routing.tasks import Route
from serving.engine.encoder import shortlist_embedder
from serving.engine.shortlist import ShortlistingEngine

WORDS = [f"word{number}" for number in range(100)]
ROUTES = [Route(name=word, description=f"All about {word}.") for word in WORDS]


def bag_of_words(texts: Sequence[str]) -> NDArray[Any]:
    """One dimension a word; a text without any has no direction."""
    rows = np.zeros((len(texts), len(WORDS)), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.replace(".", " ").replace(":", " ").split():
            if word in WORDS:
                row[WORDS.index(word)] = 1.0
    return rows


def shortlisting(limit: int = 8) -> tuple[ShortlistingEngine, FakeEngine]:
    inner = FakeEngine(max_routes=limit)
    return ShortlistingEngine(inner, lambda: bag_of_words, limit), inner


async def test_the_right_route_is_among_the_candidates() -> None:
    engine, inner = shortlisting()
    decision = await engine.decide(ROUTES, say("tell me of word73 please"))
    assert decision.route == "word73"
    (asked, _) = inner.asked[0]
    assert len(asked) == 8
    assert asked == sorted(asked, key=WORDS.index)  # in declared order
    assert list(decision.distribution) == [*WORDS, "none"]
    assert sum(decision.distribution.values()) == pytest.approx(1)
    assert decision.distribution["word99"] == 0.0
    assert engine.shortlisted == 1


async def test_few_routes_are_read_as_they_are() -> None:
    engine, inner = shortlisting()
    await engine.decide(ROUTES[:8], say("word3"))
    assert inner.asked[0][0] == WORDS[:8]
    assert engine.shortlisted == 0


async def test_a_conversation_keeps_its_candidates_while_they_do() -> None:
    engine, inner = shortlisting(4)
    first = say("word10 word11 word12 word13")
    await engine.decide(ROUTES, first)
    await engine.decide(ROUTES, say("word10 word11 word12 word13", "yes?", "rather word12 word11"))
    await engine.decide(ROUTES, say("word10 word11 word12 word13", "yes?", "now word80 word81"))
    one, two, three = (asked for asked, _ in inner.asked)
    assert one == two == ["word10", "word11", "word12", "word13"]
    assert {"word80", "word81"} <= set(three)
    # Another conversation has its own.
    await engine.decide(ROUTES, say("word50 word51 word52 word53"))
    assert inner.asked[-1][0] == ["word50", "word51", "word52", "word53"]


async def test_a_short_turn_is_read_with_what_came_before() -> None:
    engine, inner = shortlisting(4)
    await engine.decide(ROUTES, say("hello word40", "so?", "shorter"))
    assert "word40" in inner.asked[0][0]


async def test_as_many_are_read_as_fit() -> None:
    engine, inner = shortlisting(16)
    inner.too_long_from = 10
    engine.check_routes(ROUTES)
    await engine.decide(ROUTES, say("word73"))
    assert len(inner.asked[0][0]) == 9  # 16, 12, 9
    # Fewer than the limit that do not fit are shortlisted as well.
    await engine.decide(ROUTES[:12], say("word3"))
    assert len(inner.asked[1][0]) == 9


def test_routes_of_which_hardly_any_fit_are_refused() -> None:
    engine, inner = shortlisting(8)
    inner.too_long_from = 3
    with pytest.raises(RoutesTooLong):
        engine.check_routes(ROUTES)


def test_what_else_the_engine_refuses_is_refused() -> None:
    engine, inner = shortlisting(8)
    inner.max_routes = 7
    with pytest.raises(InvalidRequest):
        engine.check_routes(ROUTES)


async def test_with_the_real_encoder() -> None:
    topics = ["cooking dinner", "train tickets", "tax returns", "garden plants", "guitar lessons"]
    routes = [Route(name=f"t{n}", description=f"Help with {t}.") for n, t in enumerate(topics)]
    inner = FakeEngine()
    engine = ShortlistingEngine(inner, shortlist_embedder, 2)
    await engine.decide(routes, say("When should I prune my roses?"))
    assert "t3" in inner.asked[0][0]
    await engine.close()
    assert inner.closed
