"""Routers as the API tells them, in the shapes of DigitalOcean's, and their pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from starlette.requests import Request

from serving.errors import bad_request
from serving.presets import Preset
from serving.router_registry import RouterRegistry
from serving.router_store import StoredRouter
from serving.routers import ServedRouter

PAGE, MAX_PAGE = 20, 1000
_NAMED_BESIDE = {"name", "description"}


def configured_id(name: str) -> UUID:
    """The id of a router of the configuration file: the same on every replica."""
    return uuid5(NAMESPACE_URL, f"pointsman:router:{name}")


def configured_answer(router: ServedRouter) -> dict[str, Any]:
    """A router of the configuration file."""
    definition = router.definition.model_dump(mode="json", exclude_none=True)
    return {
        "uuid": str(configured_id(router.name)),
        **_defined(definition),
        "revision": None,
        "source": "file",
        "problem": None,
        "author": None,
        "note": None,
        "created_at": None,
        "updated_at": None,
    }


def stored_answer(router: StoredRouter, problem: str | None) -> dict[str, Any]:
    """A stored router at one of its revisions; `problem` is why it is not what is served."""
    return {
        "uuid": str(router.id),
        **_defined(router.definition),
        "revision": router.revision,
        "source": "api",
        "problem": problem,
        "author": router.author,
        "note": router.note,
        "created_at": router.created_at,
        "updated_at": router.updated_at,
    }


def answer_of(registry: RouterRegistry, router: StoredRouter) -> dict[str, Any]:
    """A stored router at its current revision."""
    return stored_answer(router, registry.problem(router))


def preset_tasks(presets: Mapping[str, Preset]) -> list[dict[str, Any]]:
    """Tasks that a policy may name by `task_slug`."""
    return [
        {
            "task_slug": task.slug,
            "name": task.name,
            "category": preset.title,
            "description": task.description,
            "models": task.models,
            "selection_policy": task.selection_policy.model_dump(exclude_none=True)
            or preset.selection_policy.model_dump(exclude_none=True),
        }
        for preset in presets.values()
        for task in preset.tasks
    ]


def page_of(request: Request) -> tuple[int, int]:
    """`page` and `per_page` of the query; raises ApiError 400."""
    return (
        _number(request, "page", 1, 1_000_000),
        _number(request, "per_page", PAGE, MAX_PAGE),
    )


def paged(
    request: Request, key: str, items: list[dict[str, Any]], page: int, size: int, total: int
) -> dict[str, Any]:
    """One page of a list, with links to those around it."""
    pages = max(1, -(-total // size))
    around = {"first": 1, "previous": page - 1, "next": page + 1, "last": pages}
    links = {
        name: str(request.url.include_query_params(page=number, per_page=size))
        for name, number in around.items()
        if 1 <= number <= pages and number != page
    }
    return {
        key: items,
        "links": {"pages": links},
        "meta": {"page": page, "pages": pages, "total": total},
    }


def _defined(definition: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in definition.items() if key not in _NAMED_BESIDE}
    return {
        "name": definition["name"],
        "description": definition.get("description", ""),
        "config": config,
    }


def _number(request: Request, name: str, default: int, most: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    number = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
    if not 1 <= number <= most:
        raise bad_request(f"{name} must be a number from 1 to {most}", name)
    return number
