"""Small corpora in the form of the real ones, written for the tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_corpora(folder: Path) -> Path:
    """All files that the readers look for."""
    folder.mkdir(exist_ok=True)
    _clinc(folder)
    _metatool(folder)
    _sgd(folder)
    return folder


def rows(path: Path, items: Iterable[Any]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)


def _clinc(folder: Path) -> None:
    domains = ["garden", "kitchen", "office"]
    intents = [
        {
            "name": f"{domain}_job{n}",
            "domain": domain,
            "description": f"Do {domain} job number {n}.",
        }
        for domain in domains
        for n in range(4)
    ]
    source = {
        "domains": [{"name": d, "description": f"All about the {d}."} for d in domains],
        "intents": intents,
    }
    (folder / "clinc_intents.json").write_text(json.dumps(source))
    texts = [
        {"text": f"please do {intent['name'].replace('_', ' ')} take {n}", "intent": intent["name"]}
        for intent in intents
        for n in range(6)
    ]
    texts += [{"text": f"who won the cup in 19{n}0", "intent": None} for n in range(10)]
    rows(folder / "clinc_train.jsonl.gz", texts)


def _metatool(folder: Path) -> None:
    tools = [
        {
            "name": f"tool_{letter}{n}",
            "description": f"Tool {letter}{n} does one thing.",
            "group": f"group_{letter}",
            "catch_all": letter == "z",
            "source_name": "X",
            "source_description": f"The one and only {letter}{n}",
        }
        for letter in "abcdefghz"
        for n in range(2 if letter == "a" else 1)
    ]
    overlaps = [["group_b", "group_c"]]
    (folder / "metatool_tools.json").write_text(json.dumps({"tools": tools, "overlaps": overlaps}))
    texts: list[dict[str, Any]] = [
        {"text": f"use {tool['name']} on item {n}", "tools": [tool["name"]]}
        for tool in tools
        for n in range(5)
    ]
    texts += [
        {"text": "first d then e", "tools": ["tool_d0", "tool_e0"]},
        {"text": "no tool helps here", "tools": []},
        {"text": "gr bl", "tools": ["tool_a0"], "noisy": True},
    ]
    rows(folder / "metatool_train.jsonl.gz", texts)


def _sgd(folder: Path) -> None:
    services = ["Boats_1", "Boats_2", "Trains_1", "Parks_1", "Zoos_1", "Pools_1"]
    intents = [
        {
            "key": f"{service}/{verb}",
            "service": service,
            "service_description": f"A service for {service}",
            "name": f"{verb.lower()}_{service.split('_')[0].lower()}",
            "description": f"{verb} with {service}",
            "service_paraphrases": [f"{service} and more"],
            "name_paraphrases": [f"{verb.lower()}_some_{service.split('_')[0].lower()}"],
            "paraphrases": [f"To {verb.lower()} by means of {service}"],
        }
        for service in services
        for verb in ("Find", "Book")
    ]
    (folder / "sgd_intents.json").write_text(json.dumps(intents))

    def dialogue(number: int) -> dict[str, Any]:
        # Neighbours in the list talk together; the two boat services never meet.
        first, second = services[number % 5 + 1], services[(number + 2) % 6]
        if {first, second} == {"Boats_1", "Boats_2"}:
            second = "Parks_1"
        turns: list[dict[str, Any]] = []
        for service, verb in ((first, "Find"), (first, "Book"), (second, "Find")):
            intent = f"{service}/{verb}"
            turns.append(
                {"role": "user", "content": f"{verb} {service} {number}", "intent": intent}
            )
            turns.append({"role": "assistant", "content": "Which one?"})
        turns.append({"role": "user", "content": "bye", "intent": None})
        return {"id": f"d{number}", "turns": turns}

    rows(folder / "sgd_train.jsonl.gz", map(dialogue, range(60)))
