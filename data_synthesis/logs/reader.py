"""Lines of a team's logs: OpenAI chat requests, bare or with their answers, and labels.

    {"messages": [...], "model": ...}                            a request's body
    {"request": {"messages": [...]}, "response": {"choices": [...]}}   with the answer to it

Beside these a line may have one of the label fields, which name the team's tasks:

    "route": "billing"                   of the last user message; null: no task fits
    "routes": ["billing", "account"]     it needs several; empty: no task fits
    "labels": [{"message": 0, "route": "billing"}, {"message": 2, "routes": []}]

`message` is an index into `messages`. Other fields are ignored. A file is read a line at a time,
and no line may be longer than `MAX_LINE` bytes.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from routing.conversation import Conversation, normalise
from routing.errors import InvalidRecord, InvalidRequest
from routing.tasks import NONE

MAX_LINE = 32 * 2**20
"""Bytes."""
_SURROGATES = re.compile(r"[\ud800-\udfff]")


class Said(NamedTuple):
    """One turn of normalised text."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A line: a request, and the answer where it is known."""

    turns: tuple[Said, ...]
    answer: tuple[Said, ...]
    """At most one assistant's turn, which follows `turns`."""
    labels: Mapping[int, tuple[str, ...]]
    """Names of the tasks that a user's turn needs, by its index in `turns`."""


class Malformed(ValueError):
    """A line that cannot be used; `kind` is what it is counted under. Never quotes the line."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def read_log(
    path: Path, names: frozenset[str], skip: Callable[[str], None] | None = None
) -> Iterator[Exchange]:
    """Exchanges of a .jsonl(.gz) file whose labels are among `names`.

    A malformed line raises InvalidRecord with file and line; with `skip`, that is called with the
    kind of fault instead, and reading goes on. A file that cannot be read always raises.
    """
    for number, line in _lines(path):
        try:
            exchange = parse_line(line, names)
        except Malformed as error:
            fault = error
        else:
            yield exchange
            continue
        # Raised outside the handler: a chained exception would carry the line's text along.
        if skip is None:
            raise InvalidRecord(f"{path}:{number}: {fault}")
        skip(fault.kind)


def parse_line(line: bytes, names: frozenset[str]) -> Exchange:
    """The exchange on a line; raises Malformed."""
    if len(line) > MAX_LINE:
        raise Malformed("too long", f"longer than {MAX_LINE} bytes")
    value = _json(line)
    if not isinstance(value, dict):
        raise Malformed("not a request", "must be an object")
    request = value.get("request") if "request" in value else value
    if not isinstance(request, dict):
        raise Malformed("not a request", "request: must be an object")
    if "messages" not in request:
        raise Malformed("not a request", "has neither messages nor a request with messages")
    messages = request["messages"]
    conversation = _normalised(messages)
    turns = [turn for turn in conversation.turns if turn.text]
    positions = {turn.message: index for index, turn in enumerate(turns) if turn.role == "user"}
    return Exchange(
        turns=tuple(Said(turn.role, _clean(turn.text)) for turn in turns),
        answer=_answer(value.get("response")) if request is not value else (),
        labels=_labels(value, messages, positions, names),
    )


def _json(line: bytes) -> Any:
    reason = ""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"not JSON, at column {error.colno}"
    except (ValueError, RecursionError):
        reason = "not JSON that can be read"
    raise Malformed("not JSON", reason)


def _normalised(messages: Any) -> Conversation:
    try:
        return normalise(messages)
    except InvalidRequest as error:
        reason = str(error)
    raise Malformed("not a request", reason)


def _answer(response: Any) -> tuple[Said, ...]:
    """The assistant's turn; none where the response has no choice, as of a failed request."""
    if response is None or (isinstance(response, dict) and not response.get("choices")):
        return ()
    choices = response.get("choices") if isinstance(response, dict) else None
    first = choices[0] if isinstance(choices, list) else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        raise Malformed("not a response", "response: must be a chat completion")
    try:
        turn = normalise([{**message, "role": "assistant"}]).turns[0]
        return (Said("assistant", _clean(turn.text)),) if turn.text else ()
    except InvalidRequest as error:
        reason = str(error).replace("messages[0]", "response.choices[0].message")
    raise Malformed("not a response", reason)


def _labels(
    line: dict[str, Any],
    messages: list[dict[str, Any]],
    positions: Mapping[int, int],
    names: frozenset[str],
) -> dict[int, tuple[str, ...]]:
    """Labels by index of turn; `positions` maps messages to turns, without blank ones."""
    given = [field for field in ("route", "routes", "labels") if field in line]
    if len(given) > 1:
        raise Malformed("bad label", f"has both {given[0]} and {given[1]}")
    if not given:
        return {}
    if given[0] != "labels":
        tasks = _tasks(line, "", names)
        return {positions[max(positions)]: tasks} if positions else {}
    if not isinstance(line["labels"], list):
        raise Malformed("bad label", "labels: must be an array")
    found: dict[int, tuple[str, ...]] = {}
    seen: set[int] = set()
    for number, label in enumerate(line["labels"]):
        at = f"labels[{number}]"
        if not isinstance(label, dict) or ("route" in label) == ("routes" in label):
            raise Malformed("bad label", f"{at}: needs message, and one of route and routes")
        message = label.get("message")
        if type(message) is not int or not 0 <= message < len(messages):
            raise Malformed("bad label", f"{at}.message: must be an index into messages")
        if messages[message].get("role") != "user":
            raise Malformed("bad label", f"{at}.message: is not a user's message")
        if message in seen:
            raise Malformed("bad label", f"{at}.message: is labelled twice")
        seen.add(message)
        tasks = _tasks(label, f"{at}.", names)
        if message in positions:
            found[positions[message]] = tasks
    return found


def _tasks(label: dict[str, Any], at: str, names: frozenset[str]) -> tuple[str, ...]:
    field = "routes" if "routes" in label else "route"
    value = label[field]
    if field == "route":
        value = [] if value is None or value == NONE else [value]
    if not isinstance(value, list):
        raise Malformed("bad label", f"{at}{field}: must be an array of names")
    if not all(isinstance(name, str) and name in names for name in value):
        # The unknown name is not quoted: what stands in the wrong field may be anything.
        known = ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
        raise Malformed("unknown label", f"{at}{field}: is not among the tasks ({known})")
    return tuple(dict.fromkeys(value))


def _clean(text: str) -> str:
    """Text that can be encoded: half a surrogate pair, which JSON can spell, is replaced."""
    return _SURROGATES.sub("\ufffd", text)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; of one that is too long only the beginning."""
    reason = ""
    try:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                rest = line
                while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
                    rest = file.readline(MAX_LINE + 1)
                if line.strip():
                    yield number, line
        return
    except (EOFError, zlib.error, gzip.BadGzipFile):
        reason = "not a whole gzip file"  # the library's own message quotes bytes
    except OSError as error:
        reason = error.strerror or "it cannot be opened"
    raise InvalidRecord(f"cannot read {path}: {reason}")
