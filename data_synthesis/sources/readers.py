"""Readers of the corpora: CLINC150, Schema-Guided Dialogue and MetaTool, as prepared for Pointsman.

Each takes the folder with the files and the extra wordings of `configs/data/wordings.yaml`, and
returns a `Corpus`. A malformed file raises InvalidRecord that names file and line.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from data_synthesis.corpus import Corpus, Dialogue, Request, Task, Turn, Wording
from routing.errors import InvalidRecord

Wordings = Mapping[str, Mapping[str, Mapping[str, list[str]]]]


def read_wordings(path: Path) -> Wordings:
    """Extra wordings by section and key; each has `names` and `descriptions`."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidRecord(f"cannot read wordings {path}: {error}") from None
    if not isinstance(loaded, dict):
        raise InvalidRecord(f"{path}: wordings must be a mapping of sections")
    return loaded


def read_clinc(folder: Path, wordings: Wordings) -> Corpus:
    """CLINC150: single requests of 100 intents in 10 domains, some out of scope."""
    source = _json(folder / "clinc_intents.json")
    tasks = {
        f"clinc/{intent['name']}": Task(
            key=f"clinc/{intent['name']}",
            group=f"clinc/{intent['domain']}",
            # Small talk and commands to the assistant itself: idle talk might be meant for them.
            area="chat" if intent["domain"] in ("small_talk", "meta") else "",
            wording=_wording(intent, wordings, "clinc", intent["name"]),
        )
        for intent in source["intents"]
    }
    groups = {
        f"clinc/{domain['name']}": _wording(domain, wordings, "clinc_domains", domain["name"])
        for domain in source["domains"]
    }
    requests = [
        Request(row["text"], (f"clinc/{row['intent']}",) if row["intent"] else ())
        for row in _rows(folder / "clinc_train.jsonl.gz", tasks, lambda row: [row["intent"]])
    ]
    return Corpus("clinc", "CC-BY-3.0", tasks, groups, tuple(requests))


def read_metatool(folder: Path, wordings: Wordings) -> Corpus:
    """MetaTool: requests that need one tool, two, or none; rows marked noisy are left out."""
    source = _json(folder / "metatool_tools.json")
    by_group: dict[str, set[str]] = defaultdict(set)
    for tool in source["tools"]:
        by_group[tool["group"]].add(f"metatool/{tool['name']}")
    overlaps: dict[str, set[str]] = defaultdict(set)
    for one, other in source["overlaps"]:
        overlaps[one] |= by_group[other]
        overlaps[other] |= by_group[one]
    tasks = {}
    for tool in source["tools"]:
        key = f"metatool/{tool['name']}"
        wording = _wording(tool, wordings, "metatool", tool["name"])
        descriptions = (*wording.descriptions, tool["source_description"])
        tasks[key] = Task(
            key=key,
            group=f"metatool/{tool['group']}",
            wording=Wording(wording.names, descriptions),
            conflicts=frozenset((by_group[tool["group"]] | overlaps[tool["group"]]) - {key}),
            catch_all=tool["catch_all"],
        )
    requests = [
        Request(row["text"], tuple(f"metatool/{name}" for name in row["tools"]))
        for row in _rows(folder / "metatool_train.jsonl.gz", tasks, lambda row: row["tools"])
        if not row.get("noisy")
    ]
    return Corpus("metatool", "MIT", tasks, {}, tuple(requests))


def read_sgd(folder: Path, wordings: Wordings) -> Corpus:
    """Schema-Guided Dialogue: multi-turn talk with services; an intent lasts until the next."""
    source = _json(folder / "sgd_intents.json")
    by_name: dict[str, set[str]] = defaultdict(set)
    by_kind: dict[str, set[str]] = defaultdict(set)
    for intent in source:
        by_name[intent["name"]].add(f"sgd/{intent['key']}")
        by_kind[_kind(intent["service"])].add(f"sgd/{intent['key']}")
    tasks: dict[str, Task] = {}
    groups: dict[str, Wording] = {}
    for intent in source:
        key, service = f"sgd/{intent['key']}", intent["service"]
        own = {k for k in by_kind[_kind(service)] if k.startswith(f"sgd/{service}/")}
        # Other services of the same kind would fit the same words, whatever they are called.
        conflicts = (by_kind[_kind(service)] - own) | (by_name[intent["name"]] - {key})
        tasks[key] = Task(
            key=key,
            group=f"sgd/{service}",
            wording=Wording(
                (intent["name"], *intent["name_paraphrases"]),
                (intent["description"], *intent["paraphrases"]),
            ),
            conflicts=frozenset(conflicts),
        )
        extra = wordings.get("sgd_services", {}).get(service, {})
        groups[f"sgd/{service}"] = Wording(
            (_kind(service).lower(), *extra.get("names", ())),
            (
                intent["service_description"],
                *intent["service_paraphrases"],
                *extra.get("descriptions", ()),
            ),
        )
    dialogues = [
        Dialogue(
            row["id"],
            tuple(
                Turn(
                    turn["role"],
                    turn["content"],
                    f"sgd/{turn['intent']}" if turn.get("intent") else None,
                )
                for turn in row["turns"]
            ),
        )
        for row in _rows(
            folder / "sgd_train.jsonl.gz",
            tasks,
            lambda row: [turn.get("intent") for turn in row["turns"]],
        )
    ]
    return Corpus("sgd", "CC-BY-SA-4.0", tasks, groups, (), tuple(dialogues))


READERS: dict[str, Callable[[Path, Wordings], Corpus]] = {
    "clinc": read_clinc,
    "metatool": read_metatool,
    "sgd": read_sgd,
}


def _kind(service: str) -> str:
    return service.rsplit("_", 1)[0]


def _wording(item: Mapping[str, Any], wordings: Wordings, section: str, key: str) -> Wording:
    extra = wordings.get(section, {}).get(key, {})
    return Wording(
        (item["name"], *extra.get("names", ())),
        (item["description"], *extra.get("descriptions", ())),
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None


def _rows(
    path: Path, tasks: Mapping[str, Task], labels: Callable[[dict[str, Any]], list[str | None]]
) -> Iterator[dict[str, Any]]:
    """Rows of a gzipped JSONL file whose labels all name a task."""
    prefix = f"{path.name.split('_')[0]}/"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    unknown = [name for name in labels(row) if name and prefix + name not in tasks]
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InvalidRecord(f"{path}:{number}: malformed row: {error!r}") from None
                if unknown:
                    raise InvalidRecord(f"{path}:{number}: unknown label {unknown[0]!r}")
                yield row
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InvalidRecord(f"cannot read {path}: {error}") from None
