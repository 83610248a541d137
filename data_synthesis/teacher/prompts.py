"""Prompt templates: one readable file each, `string.Template` placeholders, read at run time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from string import Template

from routing.errors import InvalidRecord

PLACEHOLDERS = {
    "policies": {"topic", "count", "elsewhere"},
    "refine": {"topic", "policies", "elsewhere"},
    "dialogue": {
        "topic",
        "policies",
        "elsewhere",
        "turns",
        "focus",
        "switches",
        "ellipses",
        "nones",
        "manner",
        "objections",
    },
    "edge": {"topic", "policies", "elsewhere", "count", "objections"},
    "judge": {"topic", "policies", "elsewhere", "conversations", "numbers"},
    "objections": {"objections"},
    "retry": {"problem"},
    "plain_json": {"schema"},
}
"""Files of a prompt folder, and what each may mention."""


class Prompts:
    """The templates of one folder."""

    def __init__(self, folder: Path) -> None:
        """Read them; raises InvalidRecord with the file and what is wrong."""
        self._templates: dict[str, Template] = {}
        self.hashes: dict[str, str] = {}
        """SHA-256 of each file."""
        for name, known in PLACEHOLDERS.items():
            path = folder / f"{name}.md"
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidRecord(f"cannot read prompt {path}: {error}") from None
            template = Template(text.strip())
            if not template.is_valid():
                raise InvalidRecord(f"{path}: a $ that is no placeholder; write $$ for a dollar")
            unknown = set(template.get_identifiers()) - known
            if unknown:
                allowed = ", ".join(sorted(known))
                raise InvalidRecord(f"{path}: ${min(unknown)} is unknown; known are {allowed}")
            self._templates[name] = template
            self.hashes[name] = hashlib.sha256(text.encode()).hexdigest()

    def render(self, name: str, **values: str | int) -> str:
        """A prompt with its placeholders filled in."""
        return self._templates[name].substitute(values)
