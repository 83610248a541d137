"""What the OpenAPI document says of the routers' calls."""

from __future__ import annotations

from typing import Any

from routing.tasks import Router

_PAGES = [
    {
        "name": "page",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "default": 1},
    },
    {
        "name": "per_page",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20},
    },
]
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The ETag of the router as it was read, or `*`.",
    "schema": {"type": "string", "examples": ['"3"']},
}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "description": "ETags that the caller has; 304 if the router is still at one of them.",
    "schema": {"type": "string"},
}


def _call(
    answer: str, parameters: list[dict[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    return {
        **({"parameters": parameters} if parameters else {}),
        **more,
        "responses": {
            "200": {"description": answer},
            "4XX": {"description": "The request is at fault; the body names the field and why."},
            "503": {"description": "The storage does not answer."},
        },
    }


def listing(answer: str) -> dict[str, Any]:
    """`openapi_extra` of a list in pages."""
    return _call(answer, _PAGES)


def read() -> dict[str, Any]:
    """`openapi_extra` of one router."""
    return _call("The router.")


def conditional_read() -> dict[str, Any]:
    """`openapi_extra` of one router that has an ETag."""
    return _call("The router, with its ETag.", [_IF_NONE_MATCH])


def conditional_change(answer: str) -> dict[str, Any]:
    """`openapi_extra` of a change without a body."""
    return _call(answer, [_IF_MATCH])


def definition(answer: str, *, conditional: bool = False) -> dict[str, Any]:
    """`openapi_extra` of a call whose body defines a router."""
    schema = {"$ref": "#/components/schemas/Router"}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return _call(answer, [_IF_MATCH] if conditional else None, requestBody=body)


def components() -> dict[str, Any]:
    """Schemas that bodies refer to."""
    schema = Router.model_json_schema(ref_template="#/components/schemas/{model}")
    inner = schema.pop("$defs", {})
    return {**inner, "Router": schema}
