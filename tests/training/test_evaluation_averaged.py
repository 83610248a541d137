"""Decisions by the mean over several orders of the routes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_data import ROUTES, lines, write_lines

from routing.decision import Calibration
from routing.records import ConversationRecord
from training.evaluation.averaged import AveragedOrders
from training.evaluation.report import Extras, evaluate
from training.scoring import Scores

NAMES = [route["name"] for route in ROUTES]


class FirstFavoured:
    """Knows a little, and adds much for whatever stands first."""

    name = "first favoured"
    calibration = Calibration(none_threshold=1.0)

    def __init__(self, lead: float) -> None:
        self._lead = lead
        self.read: list[list[str]] = []

    def scores(self, records: list[ConversationRecord]) -> list[list[Scores]]:
        found: list[list[Scores]] = []
        for record in records:
            names = [route.name for route in record.routes]
            self.read.append(names)
            # By its own knowledge the last of the declared routes is best.
            row = np.array([float(NAMES.index(name)) for name in names] + [-9.0], np.float32)
            row[0] += self._lead
            found.append([row] * len(record.decisions))
        return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "made_up.jsonl", lines())


def test_scores_go_back_to_their_routes_before_the_mean(file: Path) -> None:
    inner = FirstFavoured(lead=0.0)
    report = evaluate([file], [AveragedOrders(inner, 4)], progress=False)
    chosen = {outcome.decision.route for outcome in report.files[0].results[0].outcomes}
    assert chosen == {NAMES[-1]}
    assert {tuple(names) for names in inner.read} > {tuple(NAMES)}


def test_a_favoured_place_counts_less_in_the_mean(file: Path) -> None:
    every_order = 6  # of three routes: each stands first as often as the others
    lead = 2.5
    alone = evaluate([file], [_alone(lead)], progress=False, extras=Extras(orders=3))
    mean = AveragedOrders(FirstFavoured(lead), every_order)
    averaged = evaluate([file], [mean], progress=False, extras=Extras(orders=3))
    flips = [report.files[0].results[0].orders for report in (alone, averaged)]
    assert flips[0] is not None
    assert flips[1] is not None
    assert flips[0].flip_rate.value == 1
    assert flips[1].flip_rate.value == 0


def test_one_order_is_no_mean() -> None:
    with pytest.raises(ValueError, match="at least two"):
        AveragedOrders(FirstFavoured(0), 1)


def _alone(lead: float) -> AveragedOrders:
    """The same decider without any averaging."""
    decider = AveragedOrders(FirstFavoured(lead), 2)
    decider._orders = 1
    return decider
