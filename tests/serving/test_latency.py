"""What the server's own traffic says of latency, and when a model is tried to learn it."""

from __future__ import annotations

import pytest
from clock import Clock

from serving.exploration import Exploration
from serving.latency import ASSUMED_TOKENS_PER_SECOND, FAILURE_SECONDS, Latencies
from serving.needs import Need

STREAM = Need(prompt_tokens=100, stream=True)
WHOLE = Need(prompt_tokens=100)


@pytest.fixture
def latencies(clock: Clock) -> Latencies:
    return Latencies(half_life_s=100, clock=clock)


def test_a_stream_is_expected_to_begin_and_then_to_run(latencies: Latencies) -> None:
    assert latencies.expected_seconds("m", STREAM, 100) is None
    latencies.observe("m", streamed=True, seconds=0.5)
    assumed = 0.5 + 100 / ASSUMED_TOKENS_PER_SECOND
    assert latencies.expected_seconds("m", STREAM, 100) == pytest.approx(assumed)
    latencies.observe_speed("m", streamed=True, tokens=400, seconds=2)
    assert latencies.expected_seconds("m", STREAM, 100) == pytest.approx(0.5 + 0.5)
    assert latencies.expected_seconds("m", WHOLE, 100) is None


def test_a_whole_answer_takes_its_mean_time_until_its_rate_is_known(latencies: Latencies) -> None:
    latencies.observe("m", streamed=False, seconds=3)
    assert latencies.expected_seconds("m", WHOLE, 100) == pytest.approx(3)
    latencies.observe_speed("m", streamed=False, tokens=30, seconds=3)
    assert latencies.expected_seconds("m", WHOLE, 100) == pytest.approx(10)


def test_speed_without_tokens_says_nothing(latencies: Latencies) -> None:
    latencies.observe("m", streamed=False, seconds=3)
    latencies.observe_speed("m", streamed=False, tokens=0, seconds=3)
    latencies.observe_speed("m", streamed=False, tokens=5, seconds=0)
    assert latencies.expected_seconds("m", WHOLE, 100) == pytest.approx(3)


def test_the_nearest_size_of_prompt_speaks_for_one_not_seen(latencies: Latencies) -> None:
    latencies.observe("m", streamed=False, seconds=1, prompt_tokens=500)
    latencies.observe("m", streamed=False, seconds=9, prompt_tokens=200_000)
    expected = [
        latencies.expected_seconds("m", Need(prompt_tokens=tokens), 1)
        for tokens in (0, 1_000, 1_001, 30_000, 100_000, 128_001)
    ]
    assert expected == pytest.approx([1, 1, 1, 1, 9, 9])


def test_old_observations_give_way(latencies: Latencies, clock: Clock) -> None:
    for _ in range(50):
        latencies.observe("m", streamed=False, seconds=10)
    latencies.observe("m", streamed=False, seconds=0)
    soon = latencies.seconds("m", streamed=False)
    assert soon == pytest.approx(9.5)
    clock.now += 2000  # twenty half-lives
    latencies.observe("m", streamed=False, seconds=2)
    assert latencies.seconds("m", streamed=False) == pytest.approx(2, abs=0.01)


def test_failing_fast_is_not_fast(latencies: Latencies, clock: Clock) -> None:
    latencies.observe("steady", streamed=False, seconds=5)
    latencies.observe("flaky", streamed=False, seconds=1)
    for _ in range(10):
        latencies.observe_failure("flaky", streamed=False, seconds=0.01)
    steady = latencies.expected_seconds("steady", WHOLE, 1)
    flaky = latencies.expected_seconds("flaky", WHOLE, 1)
    assert steady is not None
    assert flaky is not None
    assert steady < flaky <= 1 + FAILURE_SECONDS
    clock.now += 1000
    recovered = latencies.expected_seconds("flaky", WHOLE, 1)
    assert recovered == pytest.approx(1, abs=0.05)


def test_a_long_timeout_counts_for_more_than_a_quick_failure(latencies: Latencies) -> None:
    latencies.observe_failure("never", streamed=False, seconds=120)
    latencies.observe_failure("refused", streamed=False, seconds=0.01)
    assert latencies.expected_seconds("never", WHOLE, 1) == pytest.approx(120)
    assert latencies.expected_seconds("refused", WHOLE, 1) == pytest.approx(FAILURE_SECONDS)
    latencies.observe("refused", streamed=False, seconds=1)
    better = latencies.expected_seconds("refused", WHOLE, 1)
    assert better == pytest.approx(1 + FAILURE_SECONDS / 2)


def test_names_that_clients_make_up_do_not_stay(latencies: Latencies) -> None:
    for number in range(6000):
        latencies.observe(f"p/{number}", streamed=False, seconds=1)
        latencies.observe("kept", streamed=False, seconds=1)
    assert latencies.seconds("p/0", streamed=False) is None
    assert latencies.seconds("p/5999", streamed=False) == 1
    assert latencies.seconds("kept", streamed=False) == 1


# Exploration


def rounds(exploration: Exploration, models: list[str], count: int) -> list[str | None]:
    return [exploration.due(models, streamed=False) for _ in range(count)]


def test_a_model_never_timed_is_due_once_in_so_many_requests(latencies: Latencies) -> None:
    latencies.observe("quick", streamed=False, seconds=1)
    exploration = Exploration(latencies, every=5, stale_after_s=60)
    due = rounds(exploration, ["quick", "new"], 20)
    assert due == [*([None] * 4), "new"] * 4


def test_every_stale_model_has_its_turn(latencies: Latencies) -> None:
    exploration = Exploration(latencies, every=5, stale_after_s=60)
    due = rounds(exploration, ["a", "b", "c"], 10)
    assert [due.count(name) for name in ("a", "b", "c")] == [0, 2, 1]
    assert due[4:6] == ["b", "c"]


def test_a_model_is_left_alone_while_its_latency_is_fresh(
    latencies: Latencies, clock: Clock
) -> None:
    latencies.observe("quick", streamed=False, seconds=1)
    latencies.observe_failure("broken", streamed=False)
    exploration = Exploration(latencies, every=3, stale_after_s=60)
    assert rounds(exploration, ["quick", "broken"], 20) == [None] * 20
    clock.now += 61
    latencies.observe("quick", streamed=False, seconds=1)
    assert "broken" in rounds(exploration, ["quick", "broken"], 3)


def test_nothing_is_explored_alone_or_where_it_is_off(latencies: Latencies) -> None:
    assert rounds(Exploration(latencies, every=1, stale_after_s=1), ["a"], 5) == [None] * 5
    assert rounds(Exploration(latencies, every=1, stale_after_s=1), [], 5) == [None] * 5
    assert rounds(Exploration(latencies, every=0, stale_after_s=1), ["a", "b"], 5) == [None] * 5
