"""Timers on the wheel, and the time limits that they make."""

from __future__ import annotations

import asyncio

import pytest

from serving.timers import STEP_S, TimeLimit, Wheel, wheel_of, within


class Loop:
    """An event loop's clock, and the one call that a wheel asks for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.later: list[tuple[float, object]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: object) -> None:
        self.later.append((self.now + delay, call))

    def run_until(self, when: float) -> None:
        while self.later and self.later[0][0] <= when:
            self.now, call = self.later.pop(0)
            call()  # type: ignore[operator]
        self.now = when


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def wheel(loop: Loop) -> Wheel:
    return Wheel(loop)  # type: ignore[arg-type]


def test_timers_fire_in_time_and_never_early(loop: Loop, wheel: Wheel):
    fired: dict[int, float] = {}
    for number in range(200):
        due = 100.0 + number * 0.013
        wheel.at(due, lambda number=number: fired.setdefault(number, loop.now))
    loop.run_until(110)
    assert sorted(fired) == list(range(200))
    late = [fired[number] - (100.0 + number * 0.013) for number in fired]
    assert min(late) >= 0
    assert max(late) <= 2 * STEP_S + 1e-9


def test_a_cancelled_timer_does_not_fire(loop: Loop, wheel: Wheel):
    fired: list[str] = []
    kept = wheel.at(101, lambda: fired.append("kept"))
    wheel.at(101, lambda: fired.append("gone")).cancel()
    loop.run_until(103)
    kept.cancel()
    assert fired == ["kept"]


def test_a_timer_may_set_another_and_cancel_its_neighbour(loop: Loop, wheel: Wheel):
    fired: list[str] = []
    timers = {}

    def first(name: str, other: str) -> None:
        timers[other].cancel()
        wheel.at(loop.now, lambda: fired.append(f"after {name}"))

    timers["a"] = wheel.at(101, lambda: first("a", "b"))
    timers["b"] = wheel.at(101, lambda: first("b", "a"))
    loop.run_until(103)
    assert fired in (["after a"], ["after b"])


def test_a_wheel_without_timers_rests_and_turns_again(loop: Loop, wheel: Wheel):
    fired: list[float] = []
    wheel.at(101, lambda: fired.append(loop.now))
    loop.run_until(150)
    assert loop.later == []
    wheel.at(151, lambda: fired.append(loop.now))
    loop.run_until(153)
    assert len(fired) == 2


async def test_a_wait_beyond_its_limit_is_a_timeout():
    with pytest.raises(TimeoutError), within(0.01):
        await asyncio.sleep(60)
    with pytest.raises(TimeoutError), within(60, deadline=asyncio.get_running_loop().time()):
        await asyncio.sleep(60)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_wait_within_its_limit_ends_as_it_would():
    with within(60):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="own"), within(60):
        raise ValueError("own")


async def test_the_inner_of_two_limits_fires_alone():
    loop = asyncio.get_running_loop()
    with TimeLimit(loop.time() + 60):
        with pytest.raises(TimeoutError), within(0.01):
            await asyncio.sleep(60)
        await asyncio.sleep(0)


async def test_a_cancellation_from_outside_stays_one():
    begun = asyncio.Event()

    async def work() -> None:
        with within(60):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_same_time_as_the_limit_is_heard():
    limit = within(60)

    async def work() -> None:
        with limit:
            await asyncio.sleep(60)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    limit.expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_loop_has_one_wheel():
    loop = asyncio.get_running_loop()
    assert wheel_of(loop) is wheel_of(loop)
