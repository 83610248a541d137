"""What a data set is like: counted conversation by conversation, merged shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from scipy.stats import chi2

from data_synthesis.quality.duplicates import words
from data_synthesis.recipe import Gates
from routing.records import ConversationRecord

GRAM = 5
SAMPLE_DECISIONS = 20_000
"""5-grams and tokens are counted over the first so many decisions, so that memory stays flat."""


class Statistics:
    """Counts by name; all of them add up."""

    def __init__(self, counts: Mapping[str, Mapping[str, int]] | None = None) -> None:
        self.counts: dict[str, Counter[str]] = {
            name: Counter(values) for name, values in (counts or {}).items()
        }

    def count(self, name: str, value: object, times: int = 1) -> None:
        self.counts.setdefault(name, Counter())[str(value)] += times

    def merge(self, other: Statistics) -> None:
        for name, values in other.counts.items():
            self.counts.setdefault(name, Counter()).update(values)

    def total(self, name: str) -> int:
        return sum(self.counts.get(name, Counter()).values())

    def add(self, record: ConversationRecord) -> None:
        """Count a record: its routes, labels, turns, and where the right routes stand."""
        places = {route.name: i for i, route in enumerate(record.routes)}
        self.count("source", record.tags.get("source"))
        self.count("scene", record.tags.get("scene"))
        self.count("grain", record.tags.get("grain"))
        self.count("routes", len(record.routes))
        self.count("decisions_each", len(record.decisions))
        self.count("messages_each", len(record.messages))
        for label in record.decisions:
            outcome = ("none", "one", "several")[min(len(label.expected), 2)]
            self.count("outcome", outcome)
            self.count("kind", label.tags.get("kind"))
            for task in label.tags.get("tasks", ()):
                self.count("task", task)
        # Once a conversation: turns that repeat a route say nothing new about where it stands.
        for name in {name for label in record.decisions for name in label.expected}:
            self.count(f"place_of_{len(places)}", places[name])

    def add_text(self, texts: list[str]) -> None:
        """Count 5-grams and length in words of users' lines."""
        for text in texts:
            found = words(text)
            self.count("words", min(len(found) // 10 * 10, 300))
            for i in range(len(found) - GRAM + 1):
                self.count("grams", " ".join(found[i : i + GRAM]))

    @property
    def decisions(self) -> int:
        return self.total("outcome")

    def summary(self) -> dict[str, Any]:
        """Figures for the manifest: totals, shares, and the tests that gates look at."""
        grams = self.counts.get("grams", Counter())
        tasks = self.counts.get("task", Counter())
        outcomes = self.counts.get("outcome", Counter())
        decisions = max(self.decisions, 1)
        return {
            "conversations": self.total("routes"),
            "decisions": self.decisions,
            "none_share": round(outcomes["none"] / decisions, 4),
            "several_share": round(outcomes["several"] / decisions, 4),
            "tasks": len(tasks),
            "largest_task_share": round(max(tasks.values(), default=0) / decisions, 4),
            "position_p": position_p(self),
            "top_10_five_grams_share": round(
                sum(n for _, n in grams.most_common(10)) / max(sum(grams.values()), 1), 5
            ),
            "top_5_grams": [gram for gram, _ in grams.most_common(5)],
            **{
                name: _ordered(self.counts.get(name, Counter()))
                for name in ("source", "scene", "grain", "kind", "routes", "decisions_each")
            },
            "words_a_message": _ordered(self.counts.get("words", Counter())),
            "tokens_a_conversation": _ordered(self.counts.get("tokens", Counter())),
        }


def position_p(statistics: Statistics) -> float:
    """p-value that right routes stand on each place equally often, over all route counts."""
    statistic, freedom = 0.0, 0
    for name, places in statistics.counts.items():
        if not name.startswith("place_of_"):
            continue
        size, total = int(name.removeprefix("place_of_")), sum(places.values())
        if total < 5 * size:
            continue
        expected = total / size
        statistic += sum((places[str(i)] - expected) ** 2 / expected for i in range(size))
        freedom += size - 1
    if not freedom:
        return 1.0
    return float(round(chi2.sf(statistic, freedom), 6))


def failed_gates(
    summary: Mapping[str, Any], drawn: int, duplicates: int, gates: Gates
) -> list[str]:
    """What the data is not like, one sentence each."""
    low, high = gates.none_share
    duplicate_share = duplicates / max(drawn, 1)
    checks = (
        (low <= summary["none_share"] <= high, "none_share", f"in {low} to {high}"),
        (summary["position_p"] >= gates.position_p, "position_p", f">= {gates.position_p}"),
        (
            summary["largest_task_share"] <= gates.task_share,
            "largest_task_share",
            f"<= {gates.task_share}",
        ),
        (
            summary["top_10_five_grams_share"] <= gates.top_grams,
            "top_10_five_grams_share",
            f"<= {gates.top_grams}",
        ),
    )
    failed = [f"{name} is {summary[name]}, must be {rule}" for ok, name, rule in checks if not ok]
    if duplicate_share > gates.duplicate_share:
        failed.append(
            f"duplicate_share is {duplicate_share:.3f}, must be <= {gates.duplicate_share}"
        )
    return failed


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """Counts by number where the values are numbers, else the most frequent first."""
    if counts and all(value.isdigit() for value in counts):
        return {value: counts[value] for value in sorted(counts, key=int)}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
