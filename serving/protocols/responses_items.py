"""What a Responses request says first about its input: where the items are, and what each is.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from typing import Any

from serving.errors import bad_request
from serving.protocols.shapes import one_of, text

CONTINUATIONS = ("previous_response_id", "conversation", "prompt")
"""Fields that bring a conversation from elsewhere, so that `input` may be left out."""
_ROLES = ("user", "assistant", "system", "developer")


def input_items(body: dict[str, Any]) -> list[Any]:
    """The items of a Responses body, none where it goes on from elsewhere; ApiError 400."""
    given = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    continued = any(body.get(field) is not None for field in CONTINUATIONS)
    if given is None and continued:
        return []
    if given is None:
        raise bad_request("input is required", "input")
    if not isinstance(given, list):
        raise bad_request("input must be a string or an array of items", "input")
    if not given and not continued:
        raise bad_request("input must not be empty", "input")
    return given


def item_type(item: dict[str, Any], at: str) -> str:
    """The type of an item of `input`, which messages and references may leave out."""
    kind = item.get("type")
    if kind is None and "role" in item:
        return "message"
    if kind is None and "id" in item:
        return "item_reference"
    return text(kind, f"{at}.type")


def message_role(item: dict[str, Any], at: str) -> str:
    """The role of a message among the items of `input`."""
    return one_of(item.get("role"), _ROLES, f"{at}.role")
