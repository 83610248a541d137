"""The card of a data set: what it is, how it was made, its figures, and pictures of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from data_synthesis.files import write_bytes
from data_synthesis.quality.statistics import Statistics

_PICTURES = (
    ("routes", "Routes of a conversation", "routes"),
    ("decisions_each", "Decisions of a conversation", "decisions"),
    ("words_a_message", "Words of a user's message", "words"),
    ("tokens_a_conversation", "Tokens of a conversation with its routes", "tokens"),
    ("kind", "How user turns came about", "turns"),
    ("grain", "How broad routes are", "conversations"),
)
_TEXT = {"dtype": "string"}
_INTEGER = {"dtype": "int64"}
_TEXTS = {"list": "string"}


def write_card(
    output: Path, manifest: Mapping[str, Any], figures: Mapping[str, Statistics]
) -> None:
    """Write `README.md` with the front matter that `datasets.load_dataset` reads, and pictures."""
    name = manifest["recipe"]["name"]
    pictures = _draw(output / "pictures", manifest["parts"]["train"], figures["train"])
    forms = manifest["recipe"]["forms"]
    header = {
        "pretty_name": name,
        "license": "other" if len(_licences(manifest)) > 1 else _licences(manifest)[0].lower(),
        "task_categories": ["text-classification"],
        "language": ["en"],
        "configs": [_config(form, manifest) for form in forms],
        "dataset_info": [
            {"config_name": _CONFIG_NAMES[form], "features": _features(form)} for form in forms
        ],
    }
    text = "\n\n".join(
        (
            "---\n" + yaml.safe_dump(header, sort_keys=False) + "---",
            f"# {name}",
            "Conversations with the routes that were offered and a label for each user turn: which "
            "routes it needs, none where none fits. Made by `pointsman data`; no person's words "
            "were collected for it beyond its sources'.",
            "## Sources\n\n" + _sources(manifest),
            "## Figures\n\n" + _figures(manifest),
            "## Recipe\n\n```yaml\n"
            + yaml.safe_dump(manifest["recipe"], sort_keys=False, allow_unicode=True)
            + "```",
            "## Distributions\n\n"
            + "\n\n".join(f"![{title}](pictures/{file})" for file, title in pictures),
        )
    )
    write_bytes(output / "README.md", (text + "\n").encode())


_CONFIG_NAMES = {"conversation": "conversations", "decision": "decisions"}


def _config(form: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    folder = "" if form == "conversation" else "decisions/"
    files = [{"split": part, "path": f"{folder}{part}/*.jsonl.gz"} for part in manifest["parts"]]
    config: dict[str, Any] = {"config_name": _CONFIG_NAMES[form], "data_files": files}
    if form == manifest["recipe"]["forms"][0]:
        config["default"] = True
    return config


def _features(form: str) -> list[dict[str, Any]]:
    """The fields of a row; a file alone would not show those that are empty in it."""
    call = [
        {"name": "id", **_TEXT},
        {"name": "type", **_TEXT},
        {"name": "function", "struct": [{"name": "name", **_TEXT}, {"name": "arguments", **_TEXT}]},
    ]
    messages = [
        {"name": "role", **_TEXT},
        {"name": "content", **_TEXT},
        {"name": "tool_calls", "list": call},
        {"name": "tool_call_id", **_TEXT},
    ]
    tags = [
        *({"name": name, **_TEXT} for name in ("source", "licence", "scene", "grain")),
        {"name": "k", **_INTEGER},
    ]
    kind = {"name": "kind", **_TEXT}
    routes = {
        "name": "routes",
        "list": [{"name": "name", **_TEXT}, {"name": "description", **_TEXT}],
    }
    if form == "conversation":
        label = [
            {"name": "message", **_INTEGER},
            {"name": "expected", **_TEXTS},
            {"name": "tags", "struct": [kind, {"name": "tasks", **_TEXTS}]},
        ]
        return [
            {"name": "id", **_TEXT},
            routes,
            {"name": "messages", "list": messages},
            {"name": "decisions", "list": label},
            {"name": "tags", "struct": tags},
        ]
    return [
        {"name": "id", **_TEXT},
        {"name": "conversation_id", **_TEXT},
        {"name": "turn", **_INTEGER},
        routes,
        {"name": "messages", "list": messages},
        {"name": "expected", **_TEXTS},
        {"name": "tags", "struct": [*tags, kind]},
    ]


def _licences(manifest: Mapping[str, Any]) -> list[str]:
    return sorted({facts["licence"] for facts in manifest["sources"].values()})


def _sources(manifest: Mapping[str, Any]) -> str:
    rows = [
        f"| {name} | {facts['licence']} | {facts['tasks']} |"
        for name, facts in manifest["sources"].items()
    ]
    return "\n".join(("| source | licence | tasks |", "| --- | --- | --- |", *rows))


_SHOWN = (
    *("drawn", "duplicates_dropped", "contaminated_dropped", "conversations", "decisions", "tasks"),
    *("none_share", "several_share", "largest_task_share", "position_p", "top_10_five_grams_share"),
)


def figures_table(manifest: Mapping[str, Any]) -> list[list[str]]:
    """Rows of figure names and values, a column for each part; the first row is the heading."""
    parts = manifest["parts"]
    return [
        ["figure", *parts],
        *([name, *(str(facts[name]) for facts in parts.values())] for name in _SHOWN),
    ]


def _figures(manifest: Mapping[str, Any]) -> str:
    heading, *rows = figures_table(manifest)
    lines = [heading, ["---"] * len(heading), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        text
        + "\n\n`position_p` is the p-value of a test that the right route stands on each place "
        "equally often. 5-grams are counted over the first decisions' user text."
    )


def _draw(folder: Path, facts: Mapping[str, Any], statistics: Statistics) -> list[tuple[str, str]]:
    """Pictures of the distributions; returns file names and titles."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[tuple[str, str]] = []
    areas = [(name, title, what, facts[name]) for name, title, what in _PICTURES]
    tasks = statistics.counts.get("task", Counter())
    domains: dict[str, int] = {}
    for task, count in tasks.items():
        domain = "/".join(task.split("/")[:2]) if task.count("/") > 1 else task.split("/")[0]
        domains[domain] = domains.get(domain, 0) + count
    top = dict(sorted(domains.items(), key=lambda item: -item[1])[:40])
    areas.append(("domains", "User turns by domain (most frequent)", "turns", top))
    for name, title, what, counts in areas:
        if not counts:
            continue
        wide = len(counts) > 12
        figure = Figure(figsize=(9, 0.22 * len(counts) + 1.2) if wide else (6, 3.2))
        axes = figure.subplots()
        labels, values = list(map(str, counts)), list(counts.values())
        if wide:
            axes.barh(labels[::-1], values[::-1], color="#3a6ea5")
            axes.tick_params(labelsize=7)
        else:
            axes.bar(labels, values, color="#3a6ea5")
            axes.tick_params(axis="x", rotation=30 if max(map(len, labels)) > 4 else 0, labelsize=8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(what if not wide else "count", fontsize=8)
        figure.tight_layout()
        figure.savefig(folder / f"{name}.png", dpi=110, metadata={"Software": None})
        drawn.append((f"{name}.png", title))
    return drawn
