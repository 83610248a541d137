"""Errors of the server, and the one shape in which a client sees them.

ConfigError    the owner's configuration cannot be used; names file and field
ApiError       a request is answered with an error in OpenAI's shape
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from routing.errors import ContractError

ECHOED_CHARACTERS = 200
"""Of a client's own text, at most this much is repeated in an error message."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says where and why."""


@dataclass
class ApiError(Exception):
    """An error for the client: https://platform.openai.com/docs/guides/error-codes."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] | None = None
    """Of the answer, such as `retry-after`."""

    def body(self) -> dict[str, Any]:
        return error_body(self.message, self.kind, self.param, self.code)


def error_body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The JSON object of an error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def bad_request(message: str, param: str | None, code: str | None = None) -> ApiError:
    """400 that names the field to blame."""
    return ApiError(400, message, param=param, code=code)


def from_contract(error: ContractError) -> ApiError:
    """400 for a conversation or routes that the contract refuses."""
    return bad_request(error.message, error.field)


def unknown_model(name: str, hint: str = "") -> ApiError:
    """404 in the words of OpenAI's own."""
    message = f"The model {clipped(name)!r} does not exist or is not served here."
    return ApiError(404, f"{message} {hint}".strip(), param="model", code="model_not_found")


def storage_unavailable() -> ApiError:
    """503: the database does not answer, and nothing else knows."""
    return ApiError(
        503,
        "The database does not answer.",
        "server_error",
        code="storage_unavailable",
        headers={"retry-after": "1"},
    )


def our_fault() -> ApiError:
    """500, without a word of what went wrong: that may hold a client's own."""
    return ApiError(500, "The server failed to handle this request.", "server_error")


def clipped(text: str) -> str:
    """A client's text, short enough to be repeated to them."""
    return text if len(text) <= ECHOED_CHARACTERS else text[:ECHOED_CHARACTERS] + "…"


def field_path(location: tuple[int | str, ...]) -> str:
    """`("a", 0, "b")` as ``a[0].b``."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def validation_lines(error: ValidationError) -> list[str]:
    """One line a problem, ``field: what is wrong``; never the value, which may be a secret."""
    return [
        f"{field_path(item['loc'])}: {item['msg']}" if item["loc"] else item["msg"]
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
