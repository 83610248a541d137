"""Conditional requests on what has revisions: the entity tag is the revision in quotes."""

from __future__ import annotations

import re

from starlette.requests import Request

from serving.errors import ApiError, bad_request

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_REVISION = re.compile(r"[1-9][0-9]{0,8}")


def etag(revision: int) -> str:
    """The strong entity tag of a revision."""
    return f'"{revision}"'


def if_match(request: Request) -> frozenset[int] | None:
    """Revisions that the caller has seen; None for `*`, any.

    Raises ApiError 428 without the header: an edit must not undo another that it has not seen.
    """
    tags = _tags(request, "if-match")
    if not tags:
        raise ApiError(
            428,
            "If-Match is required: the ETag of the router as you read it, or * for any.",
            param="if-match",
            code="precondition_required",
        )
    if tags == ["*"]:
        return None
    # Comparison is strong: a weak tag matches nothing.
    return frozenset(int(tag[1:-1]) for tag in tags if _REVISION.fullmatch(tag[1:-1]))


def not_modified(request: Request, revision: int) -> bool:
    """Whether `If-None-Match` says that the caller has this revision."""
    tags = _tags(request, "if-none-match")
    return "*" in tags or etag(revision) in [tag.removeprefix("W/") for tag in tags]


def changed(revision: int) -> ApiError:
    """412: the caller has seen another revision than the current one."""
    return ApiError(
        412,
        f"The router is at revision {revision} now. Read it again, and make your change to that.",
        param="if-match",
        code="precondition_failed",
    )


def _tags(request: Request, header: str) -> list[str]:
    value = ",".join(request.headers.getlist(header)).strip()
    if not value or value == "*":
        return [value] if value else []
    tags = [part.strip() for part in value.split(",")]
    if not all(_TAG.fullmatch(tag) for tag in tags):
        raise bad_request(f'{header} must be * or entity tags such as "3"', header)
    return tags
