"""Time in limits and budgets: buckets fill up, months end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from clock import Clock

from serving.access.ledger import Ledger, Usage
from serving.access.rates import LocalRates
from serving.access.sync import Sync
from serving.storage.database import DatabaseDown


async def test_a_bucket_fills_up_evenly(clock: Clock):
    rates = LocalRates(clock)
    for left in (2, 1, 0):
        assert (await rates.take("k", "requests", 3, 1)).remaining == left
    refused = await rates.take("k", "requests", 3, 1)
    assert refused.wait_s == pytest.approx(20)
    clock.now += 19
    assert (await rates.take("k", "requests", 3, 1)).wait_s == pytest.approx(1)
    clock.now += 1
    assert (await rates.take("k", "requests", 3, 1)).wait_s == 0
    clock.now += 3600
    assert (await rates.take("k", "requests", 3, 1)).remaining == 2


async def test_what_was_taken_too_much_is_given_back_and_too_little_taken(clock: Clock):
    rates = LocalRates(clock)
    await rates.take("k", "tokens", 100, 60)
    rates.correct("k", "tokens", 100, -50)
    assert (await rates.take("k", "tokens", 100, 80)).remaining == 10
    rates.correct("k", "tokens", 100, 40)
    assert (await rates.take("k", "tokens", 100, 1)).wait_s == pytest.approx(31 * 0.6)


def at(month: int, day: int, year: int = 2026) -> float:
    return datetime(year, month, day, tzinfo=UTC).timestamp()


def test_a_month_ends_in_utc_and_what_it_cost_is_still_written():
    clock = Clock()
    clock.now = at(12, 31) + 86_399
    ledger = Ledger(clock)
    assert ledger.month == "2026-12"
    ledger.spend("k", Usage(dollars=5, requests=1))
    under_way = ledger.reserve("k", 3)
    clock.now += 1
    assert ledger.account("k").committed == 0
    assert ledger.month == "2027-01"
    under_way.reserved -= 3
    ledger.spend("k", Usage(dollars=2, requests=1))
    rows = {(row.key, row.month): row.usage.dollars for row in ledger.take_unsaved()}
    assert rows == {("k", "2026-12"): 5, ("k", "2027-01"): 2}
    assert ledger.take_unsaved() == []


def test_what_could_not_be_written_is_written_later_as_it_then_is():
    clock = Clock()
    clock.now = at(3, 1)
    ledger = Ledger(clock)
    ledger.spend("k", Usage(dollars=1))
    rows = ledger.take_unsaved()
    ledger.spend("k", Usage(dollars=1))
    ledger.keep(rows)
    assert [row.usage.dollars for row in ledger.take_unsaved()] == [2]
    ledger.spend("k", Usage(dollars=1))
    rows = ledger.take_unsaved()
    clock.now = at(4, 1)
    ledger.account("k")
    ledger.keep(rows)
    assert [(row.month, row.usage.dollars) for row in ledger.take_unsaved()] == [("2026-03", 3)]


async def test_many_who_wait_make_one_look():
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        raise DatabaseDown("scripted")

    sync = Sync(look, 60)
    await sync.start()
    before = looks
    await asyncio.gather(*(sync.caught_up() for _ in range(500)))
    assert looks - before <= 2
    await sync.close()
