"""Reading and grouping of benchmark files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from evaluation_data import LOAF, ROUTES, line, lines, write_lines

from routing.errors import InvalidRecord
from training.evaluation.benchmark import read_benchmark, without_answers


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "made_up.jsonl"


def test_lines_that_extend_each_other_are_one_conversation(file: Path) -> None:
    benchmark = read_benchmark(write_lines(file, lines()))
    assert benchmark.name == "made_up"
    assert benchmark.decisions == 6
    assert [c.id for c in benchmark.conversations] == ["loaf", "tap", "odd"]
    loaf = benchmark.conversations[0]
    assert [m["content"] for m in loaf.messages] == LOAF
    assert [(d.message, d.expected) for d in loaf.decisions] == [
        (0, ["baking"]),
        (2, ["baking"]),
        (4, ["astronomy"]),
    ]
    assert loaf.decisions[2].tags == {"k": 3, "switch": True, "id": "loaf-2", "turn": 2}


@pytest.mark.parametrize(
    "second",
    [
        line("c", 1, ["Another start", "Yes", "And then?"], []),
        line("c", 1, ["A start", "Yes", "And then?"], [], routes=ROUTES[::-1]),
        line("c", 1, ["A start"], []),
        line("d", 1, ["A start", "Yes", "And then?"], []),
    ],
    ids=["other messages", "other order of routes", "no new message", "other conversation"],
)
def test_a_line_that_does_not_extend_the_last_stands_alone(
    file: Path, second: dict[str, object]
) -> None:
    benchmark = read_benchmark(write_lines(file, [line("c", 0, ["A start"], []), second]))
    assert [len(c.decisions) for c in benchmark.conversations] == [1, 1]


@pytest.mark.parametrize(("limit", "decisions"), [(1, 3), (3, 3), (4, 5), (5, 5), (6, 6), (99, 6)])
def test_a_limit_keeps_conversations_whole(file: Path, limit: int, decisions: int) -> None:
    assert read_benchmark(write_lines(file, lines()), limit).decisions == decisions


def test_deciders_do_not_see_answers(file: Path) -> None:
    record = read_benchmark(write_lines(file, lines())).conversations[0]
    shown = without_answers(record)
    assert [(d.message, d.expected, d.tags) for d in shown.decisions] == [
        (0, [], {}),
        (2, [], {}),
        (4, [], {}),
    ]
    assert record.decisions[0].expected == ["baking"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("{", r"made_up\.jsonl:2: not JSON"),
        ("[]", r"made_up\.jsonl:2: record"),
        ('{"id": "x"}', r"made_up\.jsonl:2: conversation_id"),
    ],
)
def test_a_malformed_line_is_named(file: Path, broken: str, said: str) -> None:
    write_lines(file, lines()[:1])
    with file.open("a") as end:
        end.write(broken + "\n")
    with pytest.raises(InvalidRecord, match=said):
        read_benchmark(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expected": ["gardening"]}, "made_up.jsonl:1: .*'gardening' is not among the routes"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "made_up.jsonl:1: .*end with"),
        ({"messages": [{"role": "user"}]}, r"record 'c-0': messages\[0\]\.content is required"),
        ({"messages": [{"role": "user", "content": " "}]}, r"record 'c-0': messages\[0\] is blank"),
    ],
)
def test_a_record_that_cannot_be_decided_is_named(
    file: Path, change: dict[str, object], said: str
) -> None:
    write_lines(file, [line("c", 0, ["Hi"], []) | change])
    with pytest.raises(InvalidRecord, match=said):
        read_benchmark(file)


def test_repeated_empty_and_missing_files_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRecord, match="'odd-0' appears twice"):
        read_benchmark(write_lines(file, [*lines(), lines()[-1]]))
    with pytest.raises(InvalidRecord, match="no records"):
        read_benchmark(write_lines(file, []))
    with pytest.raises(InvalidRecord, match="cannot read"):
        read_benchmark(tmp_path / "absent.jsonl")
    with pytest.raises(ValueError, match="limit"):
        read_benchmark(file, 0)


@pytest.mark.skipif("POINTSMAN_BENCHMARKS" not in os.environ, reason="POINTSMAN_BENCHMARKS not set")
def test_real_benchmarks_group_into_the_conversations_they_claim() -> None:
    folder = Path(os.environ["POINTSMAN_BENCHMARKS"])
    counts = {
        name: (benchmark.decisions, len(benchmark.conversations))
        for name in ("clinc150", "sgd_dev", "metatool", "assistant")
        for benchmark in [read_benchmark(folder / f"{name}.jsonl")]
    }
    assert counts == {
        "clinc150": (700, 700),
        "sgd_dev": (901, 110),
        "metatool": (522, 522),
        "assistant": (654, 556),
    }
