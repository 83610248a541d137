"""Order flips: what a decider is asked, and what counts as a flip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from evaluation_data import LOAF, ROUTES, Scripted, decision, line, lines, write_lines

from routing.decision import Decision
from routing.records import ConversationRecord
from training.evaluation.deciders import EvaluationError
from training.evaluation.orders import OrderFlips, disagreement, orders_of
from training.evaluation.report import Extras, evaluate
from training.evaluation.rules import FirstRoute

NAMES = [route["name"] for route in ROUTES]


class Swayed:
    """Sure of everything but the crust, for which it takes the route listed last."""

    name = "swayed"

    def __init__(self) -> None:
        self.seen: list[ConversationRecord] = []

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        for record in conversations:
            self.seen.append(record)
            said = [record.messages[label.message]["content"] for label in record.decisions]
            last = record.routes[-1].name
            yield [decision(last if text == LOAF[2] else "baking") for text in said]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "made_up.jsonl", lines())


def flips(file: Path, decider: object, **extras: int) -> OrderFlips | None:
    report = evaluate([file], [decider], progress=False, extras=Extras(**extras))  # type: ignore[list-item]
    return report.files[0].results[0].orders


def test_orders_differ_begin_with_the_declared_one_and_are_the_same_every_time() -> None:
    found = orders_of(6, 5, "seed")
    assert found[0] == (0, 1, 2, 3, 4, 5)
    assert len(set(found)) == 5
    assert all(sorted(order) == list(range(6)) for order in found)
    assert found == orders_of(6, 5, "seed") != orders_of(6, 5, "another")
    # More orders only add to fewer.
    assert orders_of(6, 9, "seed")[:5] == found


@pytest.mark.parametrize(("routes", "expected"), [(1, 1), (2, 2), (3, 5), (64, 5)])
def test_few_routes_have_few_orders(routes: int, expected: int) -> None:
    assert len(orders_of(routes, 5, "seed")) == expected
    assert len(orders_of(4, 99, "seed")) == math.factorial(4)


def test_disagreement_is_the_share_of_pairs_that_differ() -> None:
    assert disagreement(["a", "a", None]) == pytest.approx(2 / 3)
    assert disagreement(["a", "b", None]) == 1
    assert disagreement([None, None]) == 0
    assert disagreement(["a", "a", "a", "a", "b"]) == pytest.approx(4 / 10)


def test_a_flip_is_any_order_that_decides_otherwise(file: Path) -> None:
    measured = flips(file, Swayed(), orders=5)
    assert measured is not None
    # One of six decisions depends on the order; five orders of three routes have every last one.
    assert measured.flip_rate.value == pytest.approx(1 / 6)
    assert (measured.flip_rate.n, measured.conversations, measured.orders) == (6, 3, 5)
    # Of the five orders two and two share their last route: all but two of ten pairs differ.
    assert measured.disagreement.value == pytest.approx((8 / 10) / 6)
    assert measured.flip_rate.low == 0 < measured.flip_rate.high


def test_a_decider_that_reads_no_order_never_flips_and_one_that_reads_nothing_else_does(
    file: Path,
) -> None:
    steady = flips(file, Scripted({LOAF[0]: "baking"}), orders=5)
    assert steady is not None
    assert (steady.flip_rate.value, steady.flip_rate.high, steady.disagreement.value) == (0, 0, 0)
    first = flips(file, FirstRoute(), orders=5)
    assert first is not None
    assert (first.flip_rate.value, first.flip_rate.low) == (1, 1)


def test_the_decider_is_given_each_conversation_once_more_in_each_further_order(file: Path) -> None:
    decider = Swayed()
    flips(file, decider, orders=3, orders_limit=2)
    assert [r.id for r in decider.seen] == ["loaf", "tap", "odd", "loaf", "tap", "loaf", "tap"]
    given = [[route.name for route in r.routes] for r in decider.seen if r.id == "loaf"]
    assert given[0] == NAMES
    assert len({tuple(order) for order in given}) == 3
    assert all(sorted(order) == sorted(NAMES) for order in given)
    # Again without answers, and with everything else as it was.
    assert all(label.expected == [] for record in decider.seen for label in record.decisions)
    assert len({str(r.messages) for r in decider.seen if r.id == "loaf"}) == 1


def test_conversations_with_one_route_cannot_be_reordered(tmp_path: Path) -> None:
    alone = line("alone", 0, ["Hi"], [], routes=ROUTES[:1])
    file = write_lines(tmp_path / "one.jsonl", [alone])
    assert flips(file, FirstRoute(), orders=5) is None
    file = write_lines(tmp_path / "two.jsonl", [alone, *lines()])
    measured = flips(file, FirstRoute(), orders=5)
    assert measured is not None
    assert (measured.conversations, measured.flip_rate.n) == (3, 6)


def test_flips_are_off_unless_asked_for_and_one_order_is_refused(file: Path) -> None:
    assert flips(file, FirstRoute()) is None
    for extras in ({"orders": 1}, {"orders": -1}, {"orders": 5, "orders_limit": 0}):
        with pytest.raises(EvaluationError, match="order flips need at least"):
            Extras(**extras)
