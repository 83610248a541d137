"""Which session a request belongs to, and which turn of its user it is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from routing.conversation import Conversation, Turn
from routing.values import value_type
from serving.digest import digest
from serving.errors import bad_request

AFFINITY_HEADER = "x-model-affinity"
MAX_AFFINITY = 256
"""Characters."""
_BILLING = "x-anthropic-billing-header:"
"""Claude Code begins its system prompt with such a line, another one in each request."""
_SILENT = frozenset({"type", "text", "cache_control", "refusal"})
"""Keys of a part that are in the turn's text already, or move from request to request."""


@value_type
class SessionKey:
    """`id` is a digest: it names the session to anybody without telling what is in it."""

    id: str
    explicit: bool
    """Whether the client named the session."""


def parse_affinity(values: Sequence[str]) -> str | None:
    """The name of a session, given all values of the header; raises ApiError 400 that names it."""
    given = [value.strip() for value in values if value.strip()]
    if not given:
        return None
    if len(given) > 1:
        raise bad_request(f"{AFFINITY_HEADER} is given twice", AFFINITY_HEADER)
    if len(given[0]) > MAX_AFFINITY:
        message = f"{AFFINITY_HEADER} is longer than {MAX_AFFINITY} characters"
        raise bad_request(message, AFFINITY_HEADER)
    return given[0]


def explicit_key(tenant: str, router: str | None, affinity: str) -> SessionKey:
    """The session that a client of a tenant has named, at one router."""
    return SessionKey(digest(("named", tenant, router or "", affinity)).hex(), explicit=True)


def implicit_key(
    tenant: str,
    router: str | None,
    conversation: Conversation,
    messages: Sequence[Mapping[str, Any]],
    body: Mapping[str, Any],
) -> SessionKey | None:
    """The session of a conversation that begins so: its system prompt, tools, first user turn.

    `messages` are those that `conversation` was made of. None where no user has said anything.
    """
    parts: list[str | bytes] = ["begun", tenant, router or ""]
    for turn in conversation.turns:
        if turn.role == "system":
            parts.append(_without_billing(turn.text))
        elif turn.role == "user":
            parts += ("", turn.text, *_attachments(messages[turn.message]), *_tools(body))
            return SessionKey(digest(parts).hex(), explicit=False)
    return None


def turn_digest(conversation: Conversation) -> str:
    """Of the last user turn; the same words said again later are another turn."""
    turns: list[Turn] = [turn for turn in conversation.turns if turn.role == "user"]
    return digest((b"%d" % len(turns), turns[-1].text if turns else "")).hex()


def begins(conversation: Conversation) -> bool:
    """Whether nobody has answered yet."""
    return all(turn.role in ("system", "user") for turn in conversation.turns)


def _without_billing(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(_BILLING) else text


def _attachments(message: Mapping[str, Any]) -> Iterator[bytes]:
    """Pictures and files of a message: in its text they are marks, all alike."""
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        for name, value in part.items():
            if name not in _SILENT:
                yield name.encode("utf-8", "surrogatepass")
                yield _dumped(value)


def _tools(body: Mapping[str, Any]) -> Iterator[bytes]:
    for name in ("tools", "functions"):
        if body.get(name):
            yield _dumped(body[name])


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError):  # deeper than orjson writes, or half of a surrogate pair
        return repr(value).encode("utf-8", "surrogatepass")
