"""The circuit breaker: when a model is left alone, for how long, and how it comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from clock import Clock
from hypothesis import given
from hypothesis import strategies as st

from serving.breaker import Breakers
from serving.config import BreakerConfig
from serving.retry_after import retry_after_s


def breakers(clock: Clock, **config: float) -> Breakers:
    return Breakers(BreakerConfig(**config), clock=clock, uniform=lambda: 1.0)


def test_it_opens_after_failures_in_a_row_and_a_success_between_forgives(clock: Clock):
    found = breakers(clock, failures=3)
    for _ in range(2):
        found.failed("m")
    found.succeeded("m")
    for _ in range(2):
        found.failed("m")
    assert found.state("m") == "closed"
    found.failed("m")
    assert found.state("m") == "open"
    assert found.state("other") == "closed"
    assert found.snapshot() == {"m": "open"}


def test_one_probe_at_a_time_and_its_success_closes(clock: Clock):
    found = breakers(clock, failures=1, open_s=5, probe_s=30)
    found.failed("m")
    clock.now += 5
    assert found.state("m") == "half_open"
    found.asked("m")
    assert found.state("m") == "open"  # others wait for the probe
    found.succeeded("m")
    assert found.state("m") == "closed"


def test_a_probe_whose_client_left_makes_room_for_the_next(clock: Clock):
    found = breakers(clock, failures=1)
    found.failed("m")
    clock.now += 5
    found.asked("m")
    found.abandoned("m")
    assert found.state("m") == "half_open"
    found.asked("m")
    clock.now += 31
    assert found.state("m") == "half_open"  # the probe never came back


def test_each_failed_probe_doubles_the_wait_up_to_a_limit(clock: Clock):
    found = breakers(clock, failures=1, open_s=5, open_max_s=30)
    waits = []
    for _ in range(5):
        found.failed("m")
        waits.append(found.wait_s("m"))
        clock.now += waits[-1]
        found.asked("m")
    assert waits == [5, 10, 20, 30, 30]


def test_a_last_resort_that_fails_does_not_extend_the_wait(clock: Clock):
    found = breakers(clock, failures=1, open_s=5)
    found.failed("m")
    clock.now += 2
    found.failed("m")
    assert found.wait_s("m") == 3


def test_retry_after_cools_at_once_and_only_so_long(clock: Clock):
    found = breakers(clock, retry_after_max_s=60)
    found.failed("m", retry_after_s=7)
    assert found.state("m") == "cooling"
    clock.now += 7
    assert found.state("m") == "half_open"
    found.failed("m", retry_after_s=1e9)
    assert found.wait_s("m") == 60


@given(st.lists(st.sampled_from(["fail", "ok", "ask", "leave", "wait", "cool"]), max_size=60))
def test_whatever_happens_a_model_is_asked_again_in_bounded_time(steps: list[str]):
    clock = Clock()
    config = BreakerConfig(open_max_s=120, probe_s=30, retry_after_max_s=300)
    found = Breakers(config, clock=clock)
    for step in steps:
        match step:
            case "fail":
                found.failed("m")
            case "cool":
                found.failed("m", retry_after_s=50)
            case "ok":
                found.succeeded("m")
                assert found.state("m") == "closed"
            case "ask":
                found.asked("m")
            case "leave":
                found.abandoned("m")
            case "wait":
                clock.now += 10
        assert found.wait_s("m") <= 300
    clock.now += 301
    assert found.state("m") in ("closed", "half_open")


def test_retry_after_is_seconds_or_a_date():
    assert retry_after_s("7") == 7
    assert retry_after_s(" 1.5 ") == 1.5
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after_s(format_datetime(later, usegmt=True)) == pytest.approx(90, abs=2)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    for nonsense in (None, "", "soon", "-1", "1e999", "٣", "7 s"):
        assert retry_after_s(nonsense) is None
