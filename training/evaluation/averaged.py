"""A checkpoint that reads its routes in several orders and takes the mean.

What a list's order does to single scores averages out, for as many forward passes as orders. That
permuting options steadies a language model's choice is known from multiple-choice questions (Zheng
et al. 2023, arXiv 2309.03882); here scores are averaged before the softmax.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from routing.decision import Calibration, Decision, decide
from routing.records import ConversationRecord
from training.evaluation.orders import orders_of, reordered
from training.scoring import Scores

WINDOW = 16
"""Conversations that are read together."""


class Scoring(Protocol):
    """What is averaged over; `training.scoring.ModelDecider`, reading routes as listed."""

    name: str
    calibration: Calibration

    def scores(self, records: list[ConversationRecord]) -> list[list[Scores]]: ...


class AveragedOrders:
    """Decides by the mean scores over up to `orders` orders, the given one among them."""

    def __init__(self, inner: Scoring, orders: int) -> None:
        if orders < 2:
            raise ValueError("a mean over orders needs at least two")
        self.name = f"{inner.name}, mean of {orders} orders"
        self._inner = inner
        self._orders = orders

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        window: list[ConversationRecord] = []
        for record in conversations:
            window.append(record)
            if len(window) == WINDOW:
                yield from self._decide(window)
                window = []
        yield from self._decide(window)

    def _decide(self, records: Sequence[ConversationRecord]) -> Iterator[list[Decision]]:
        # Drawn by the record alone, so that asking again changes nothing.
        plans = [
            orders_of(len(record.routes), self._orders, f"averaged/{record.id}")
            for record in records
        ]
        read = [
            reordered(record, order)
            for record, plan in zip(records, plans, strict=True)
            for order in plan
        ]
        scores = iter(self._inner.scores(read))
        for record, plan in zip(records, plans, strict=True):
            names = [route.name for route in record.routes]
            by_order = [_in_place(next(scores), order) for order in plan]
            yield [
                decide(names, np.mean(rows, axis=0), self._inner.calibration)
                for rows in zip(*by_order, strict=True)
            ]


def _in_place(rows: Sequence[Scores], order: Sequence[int]) -> list[Scores]:
    """Scores of a reordered record in the order of the record itself; "none" stays last."""
    places = [*np.argsort(order), len(order)]
    return [row[places] for row in rows]
