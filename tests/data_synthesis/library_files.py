"""A small taxonomy and authored library, written for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from data_synthesis.phrases import KINDS

AREAS = ("coding", "operations", "chat", "writing", "knowledge", "customer_service")
AREAS += ("personal", "business")
DOMAINS = {"bakery": "personal", "forge": "coding", "harbour": "business", "orchard": "writing"}
VERBS = ("mend", "count", "paint", "sell")


def write_library(folder: Path) -> tuple[Path, Path]:
    """Folders of the library and of the taxonomy."""
    library, taxonomy = folder / "authored", folder / "taxonomy"
    for path in (library / "tasks", library / "attachments", taxonomy):
        path.mkdir(parents=True, exist_ok=True)
    for domain, area in DOMAINS.items():
        dump(taxonomy / f"{domain}.yaml", _domain(domain, area))
        dump(library / "tasks" / f"{domain}.yaml", _talk(domain))
    dump(library / "slots.yaml", {"person": ["Ada", "Bo", "Cy"], "weekday": ["Monday", "Friday"]})
    dump(library / "phrases.yaml", _phrases())
    dump(library / "families.yaml", _families())
    dump(library / "attachments" / "code.yaml", [_attachment(n) for n in range(6)])
    dump(library / "attachments" / "document.yaml", [{"text": f"A paper {n}."} for n in range(3)])
    dump(library / "tool_results.yaml", [{"name": "ls", "arguments": "{}", "result": "a.txt"}])
    return library, taxonomy


def dump(path: Path, value: object) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False))


def _domain(domain: str, area: str) -> dict[str, Any]:
    return {
        "domain": domain,
        "area": area,
        **_entry(f"all of the {domain}"),
        "alternatives": [f"{domain}_matters"],
        "tasks": [
            {
                "name": f"{verb}_{domain}",
                **_entry(f"{verb} something in the {domain}"),
                "alternatives": [f"{domain}_{verb}ing"],
                "neighbours": [f"{VERBS[(n + 1) % 4]}_{domain}"],
                "out_of_scope": "Anything else.",
            }
            for n, verb in enumerate(VERBS)
        ],
    }


def _entry(what: str) -> dict[str, Any]:
    return {
        "description": f"Here people {what}.",
        "paraphrases": [f"To {what}", f"This one is for those who {what} all day."],
    }


def _talk(domain: str) -> dict[str, Any]:
    def texts(verb: str) -> dict[str, list[str]]:
        said = f"{verb} the {domain}"
        return {
            "openings": [
                f"{said} {{thing}} for {{person}}",
                f"I want to {said} because {{person}} said {{so|no}} {{weekday}}",
                f"Look at this and {said}\n\n{{CODE.python}}",
                f"who can {said} and the {{thing_2}}",
            ],
            "follow_ups": [f"{said} again", f"now {said} twice for {{person}}"],
            "arrivals": [f"enough of that, {said}", f"fine. {said} then"],
            "replies": [f"I {said} as asked.", "Done with the {thing}."],
        }

    return {
        "domain": domain,
        "slots": {"thing": [f"{domain}_door", f"{domain}_roof", f"{domain}_gate"]},
        "tasks": {f"{verb}_{domain}": texts(verb) for verb in VERBS},
    }


def _phrases() -> dict[str, list[str]]:
    phrases = {kind: [f"{kind} one", f"{kind} two {{person}}"] for kind in KINDS}
    phrases["joins"] = ["{first} And then: {second}"]
    phrases["returns"] = ["back again: {request}"]
    phrases["shifts"] = ["now this: {request}"]
    return phrases


def _families() -> dict[str, Any]:
    return {
        "areas": [
            {"name": area, "alternatives": [f"{area}_things"], **_entry(f"do {area}")}
            for area in AREAS
        ],
        "families": [
            {
                "name": f"{verb}ing",
                "alternatives": [f"to_{verb}"],
                **_entry(f"{verb} whatever it is"),
                "members": [f"{domain}/{verb}_{domain}" for domain in DOMAINS],
            }
            for verb in VERBS
        ],
    }


def _attachment(number: int) -> dict[str, str]:
    return {"text": f"print({number})", "language": "python" if number % 2 else "go"}
