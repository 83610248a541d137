"""Latency: what is timed, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from evaluation_data import LOAF, decision, lines, write_lines

from routing.decision import Decision
from routing.records import ConversationRecord
from training.evaluation.benchmark import read_benchmark
from training.evaluation.deciders import EvaluationError
from training.evaluation.latency import measure_latency
from training.evaluation.report import Extras, evaluate


class Slow:
    """Takes as many seconds of a made-up clock as the conversation has messages."""

    name = "slow"

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[list[ConversationRecord]] = []
        self.cleared: list[int] = []

    def clock(self) -> float:
        return self.now

    def clear_cache(self) -> None:
        self.cleared.append(len(self.calls))

    def decide_all(self, conversations: Iterable[ConversationRecord]) -> Iterator[list[Decision]]:
        self.calls.append([])
        for record in conversations:
            self.calls[-1].append(record)
            self.now += len(record.messages)
            yield [decision("baking") for _ in record.decisions]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Conversations of 5, 3 and 1 messages."""
    return write_lines(tmp_path / "made_up.jsonl", lines())


def test_single_decisions_are_timed_after_an_untimed_one(file: Path) -> None:
    decider = Slow()
    conversations = read_benchmark(file).conversations
    latency = measure_latency(decider, conversations, 5, clock=decider.clock)
    # The first conversation only warms up; 3 s and 1 s are left.
    assert (latency.n, latency.median_ms, latency.p95_ms) == (2, 2000, pytest.approx(2900))
    assert [[record.id for record in call] for call in decider.calls] == [
        ["loaf"],
        ["tap"],
        ["odd"],
    ]
    assert decider.cleared == [1, 2]


def test_the_last_turn_alone_is_decided_with_all_before_it(file: Path) -> None:
    decider = Slow()
    measure_latency(decider, read_benchmark(file).conversations, 1, clock=decider.clock)
    ((loaf,), (tap,)) = decider.calls
    assert [message["content"] for message in loaf.messages] == LOAF
    assert [(label.message, label.expected) for label in loaf.decisions] == [(4, [])]
    assert [label.message for label in tap.decisions] == [2]


def test_a_single_conversation_is_warmed_up_with_and_timed(file: Path) -> None:
    decider = Slow()
    (loaf,) = read_benchmark(file, limit=1).conversations
    latency = measure_latency(decider, [loaf], 10, clock=decider.clock)
    assert (latency.n, latency.median_ms, latency.p95_ms) == (1, 5000, 5000)
    assert len(decider.calls) == 2


def test_evaluation_times_before_its_run_and_only_if_asked(file: Path) -> None:
    decider = Slow()
    (result,) = (
        evaluate([file], [decider], progress=False, extras=Extras(latency=1)).files[0].results
    )
    assert result.latency is not None
    assert result.latency.n == 1
    assert [len(call) for call in decider.calls] == [1, 1, 3]
    (result,) = evaluate([file], [Slow()], progress=False).files[0].results
    assert result.latency is None
    with pytest.raises(EvaluationError, match="latency needs"):
        Extras(latency=-1)
