"""Timers on the wheel, and the time limits that they make."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

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


class Call:
    """A timer that calls back."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.due = call


def test_timers_fire_in_time_and_never_early(loop: Loop, wheel: Wheel):
    fired: dict[int, float] = {}
    for number in range(200):
        call = Call(lambda number=number: fired.setdefault(number, loop.now))  # type: ignore[misc]
        wheel.put(call, 100.0 + number * 0.013)
    loop.run_until(110)
    assert sorted(fired) == list(range(200))
    late = [fired[number] - (100.0 + number * 0.013) for number in fired]
    assert min(late) >= 0
    assert max(late) <= 2 * STEP_S + 1e-9


def test_a_timer_that_is_taken_out_does_not_fire(loop: Loop, wheel: Wheel):
    fired: list[str] = []
    kept, gone = Call(lambda: fired.append("kept")), Call(lambda: fired.append("gone"))
    slot = wheel.put(kept, 101)
    wheel.put(gone, 101).discard(gone)
    loop.run_until(103)
    slot.discard(kept)
    assert fired == ["kept"]


def test_a_timer_may_set_another_and_take_its_neighbour_out(loop: Loop, wheel: Wheel):
    fired: list[str] = []

    def first(name: str, other: str) -> None:
        slot.discard(timers[other])
        wheel.put(Call(lambda: fired.append(f"after {name}")), loop.now)

    timers = {"a": Call(lambda: first("a", "b")), "b": Call(lambda: first("b", "a"))}
    wheel.put(timers["a"], 101)
    slot = wheel.put(timers["b"], 101)
    loop.run_until(103)
    assert fired in (["after a"], ["after b"])


def test_a_wheel_without_timers_rests_and_turns_again(loop: Loop, wheel: Wheel):
    fired: list[float] = []
    wheel.put(Call(lambda: fired.append(loop.now)), 101)
    loop.run_until(150)
    assert loop.later == []
    wheel.put(Call(lambda: fired.append(loop.now)), 151)
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
    limit.due()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_loop_has_one_wheel():
    loop = asyncio.get_running_loop()
    assert wheel_of(loop) is wheel_of(loop)


async def test_a_limit_leaves_no_cycle_of_objects():
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            with within(60):
                await asyncio.sleep(0)
        assert gc.collect() == 0
    finally:
        gc.enable()
