"""The taxonomy: what is authored is clean, and what is not is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_synthesis.taxonomy import full_keys, load_taxonomy
from data_synthesis.taxonomy_check import check
from routing.errors import InvalidRecord

ROOT = Path(__file__).resolve().parents[2]


SUBJECTS = {
    "first": "Deciding how the first department spends its yearly budget.",
    "second": "Watering plants, and replacing those that have withered.",
    "third": "Ordering chairs, desks and lamps from a catalogue.",
    "fourth": "Booking rooms for visitors who stay several days.",
}


def task(name: str, **updates: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": name,
        "description": SUBJECTS.get(name, f"Letters to the people in {name}, sorted by hand."),
        "alternatives": [f"{name}_money"],
        "paraphrases": [f"Money of {name}", f"What can be bought for {name} this year."],
        "neighbours": [],
        "out_of_scope": "Paying bills.",
    }
    return {**values, **updates}


def write(folder: Path, *tasks: dict[str, Any], **updates: Any) -> Path:
    domain: dict[str, Any] = {
        "domain": "offices",
        "area": "business",
        "description": "Running offices.",
        "alternatives": ["bureaus"],
        "paraphrases": ["Office work", "Anything in an office."],
        "tasks": list(tasks),
        **updates,
    }
    (folder / "offices.yaml").write_text(yaml.safe_dump(domain))
    return folder


def findings(folder: Path) -> list[tuple[str, str]]:
    return [(f.kind, f.key) for f in check(load_taxonomy(folder))]


def test_the_authored_taxonomy_is_large_and_clean() -> None:
    taxonomy = load_taxonomy(ROOT / "configs" / "taxonomy")
    tasks = dict(taxonomy.tasks())
    assert len(taxonomy.domains) >= 60
    assert len(tasks) >= 500
    assert check(taxonomy) == []
    assert {domain.area for domain in taxonomy.domains.values()} == {
        *("coding", "operations", "chat", "writing"),
        *("knowledge", "customer_service", "personal", "business"),
    }
    assert all(set(full_keys(key, task)) <= tasks.keys() for key, task in tasks.items())


def test_each_kind_of_trouble_is_found(tmp_path: Path) -> None:
    same = "Deciding how the first department spends its yearly budgets."
    write(
        tmp_path,
        task("first", neighbours=["second"]),
        task("second", neighbours=["first"], description=same),
        task("third", neighbours=["first"], alternatives=["first_money"]),
        task("fourth", neighbours=["first"], description="I want to know what my budget is."),
        task("budget_plan", neighbours=["first"], description="The plan of a budget."),
        task("sixth"),
    )
    assert sorted(findings(tmp_path)) == sorted(
        [
            ("duplicate", "offices/third"),
            ("near-duplicate", "offices/second"),
            ("leak", "offices/fourth"),
            ("leak", "offices/budget_plan"),
            ("no neighbours", "offices/sixth"),
        ]
    )


def test_a_paraphrase_that_repeats_is_an_echo(tmp_path: Path) -> None:
    echo = "Deciding how the first department spends the yearly budget."
    write(
        tmp_path,
        task("first", neighbours=["second"], paraphrases=["Money", echo]),
        task("second", neighbours=["first"], description="Something else entirely."),
    )
    assert ("echo", "offices/first") in findings(tmp_path)


@pytest.mark.parametrize(
    ("tasks", "updates", "complaint"),
    [
        ([task("One", alternatives=["uno"])], {}, r"offices\.yaml: tasks\.0\.name"),
        ([task("one", neighbours=["two"])], {}, "no such neighbour: offices/two"),
        ([task("one", neighbours=["one"])], {}, "no such neighbour: offices/one"),
        ([task("one"), task("one")], {}, "two have the same name"),
        ([task("one", paraphrases=["x"])], {}, r"tasks\.0\.paraphrases"),
        ([task("one", extra=1)], {}, r"tasks\.0\.extra"),
        ([task("one")], {"domain": "shops"}, "is not the file's name"),
        ([task("one")], {"area": "sports"}, "area"),
        ([], {}, "tasks"),
    ],
)
def test_malformed_files_name_file_and_field(
    tmp_path: Path, tasks: list[dict[str, Any]], updates: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidRecord, match=complaint):
        load_taxonomy(write(tmp_path, *tasks, **updates))


def test_a_folder_without_domains_is_no_taxonomy(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecord, match="no domain files"):
        load_taxonomy(tmp_path)
    (tmp_path / "offices.yaml").write_text("{")
    with pytest.raises(InvalidRecord, match="cannot read"):
        load_taxonomy(tmp_path)
