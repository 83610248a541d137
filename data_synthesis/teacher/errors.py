"""Why the teacher stopped; each message is for the person who started it.

TeacherError
├── EndpointError      the endpoint refuses a request, or cannot be reached at all
├── CallFailed         one request failed at every attempt
└── CapReached         the next call could exceed the cap on money or tokens
"""

from __future__ import annotations


class TeacherError(RuntimeError):
    """Base class."""


class EndpointError(TeacherError):
    """The endpoint refuses a request for good; names address and status, never the key."""


class CallFailed(TeacherError):
    """A request failed at every attempt; others may still succeed."""


class CapReached(TeacherError):
    """The next call could exceed a cap."""
