"""Errors of the contract. Each says what is wrong and, where one exists, which field is to blame.

ContractError
├── InvalidRequest        a client's conversation or routes cannot be read
│   └── RoutesTooLong     the routes alone exceed the token budget
├── InvalidRecord         a line of a data file is malformed
├── InvalidScores         an engine returned scores that are no distribution
└── UnsupportedCheckpoint a checkpoint's manifest is missing, broken or of an unknown layout
"""

from __future__ import annotations


class ContractError(ValueError):
    """Base class; `field` is a path such as ``messages[2].content``, or None."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidRequest(ContractError):
    """A conversation or a set of routes that cannot be read."""


class RoutesTooLong(InvalidRequest):
    """The routes leave no room for a conversation within the token budget."""


class InvalidRecord(ContractError):
    """A line of a data file that is not a routing record; the message names file and line."""


class InvalidScores(ContractError):
    """Scores of the wrong number, or not finite."""


class UnsupportedCheckpoint(ContractError):
    """A checkpoint that this version cannot serve or continue."""
