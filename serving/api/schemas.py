"""What the OpenAPI document says of bodies: the fields that this server reads itself.

Everything else of a body is the upstream's business and passes as it came, so no schema is closed.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from routing.tasks import RoutingPreference
from serving.protocols.base import Protocol

_MODEL = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "description": "`router:<name>`, or a model's own name.",
    "examples": ["router:software-engineering"],
}
_STREAM = {"type": "boolean", "default": False}
_PREFERENCES = {
    "type": "array",
    "minItems": 1,
    "description": "Tasks with their models, instead of a router's own.",
    "items": {"$ref": "#/components/schemas/RoutingPreference"},
}
_PART = {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]}


def _message(roles: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"type": "string", "enum": roles}, "content": _CONTENT},
    }


_MESSAGES = {
    Protocol.CHAT: ["system", "developer", "user", "assistant"],
    Protocol.MESSAGES: ["user", "assistant"],
}
_LIMIT = {"type": "integer", "minimum": 1}
_NO_DATABASE = "The database does not answer."


def _body(protocol: Protocol, *, decision_only: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "model": _MODEL,
        "stream": _STREAM,
        "routing_preferences": _PREFERENCES,
    }
    required = [] if decision_only else ["model"]
    if protocol is Protocol.RESPONSES:
        said = "input"
        properties["input"] = {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"type": "object"}},
            ]
        }
    else:
        said = "messages"
        items = _message(_MESSAGES[protocol])
        properties["messages"] = {"type": "array", "minItems": 1, "items": items}
    required.append(said)
    if protocol is Protocol.MESSAGES:
        properties["max_tokens"] = _LIMIT
        properties["system"] = _CONTENT
        if not decision_only:
            required.append("max_tokens")
    return {"type": "object", "required": required, "properties": properties}


def _described(
    schema: dict[str, Any], answer: str, failure: str = "No model answered."
) -> dict[str, Any]:
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        **_responses(answer, failure),
    }


def _responses(answer: str, failure: str) -> dict[str, Any]:
    return {
        "responses": {
            "200": {"description": answer},
            "4XX": {"description": "The request is at fault; the body names the field."},
            "5XX": {"description": failure},
        },
    }


def completion(protocol: Protocol) -> dict[str, Any]:
    """`openapi_extra` of a call that is answered by a model."""
    return _described(_body(protocol, decision_only=False), "The model's answer, or its stream.")


def decision(protocol: Protocol) -> dict[str, Any]:
    """`openapi_extra` of a call that is answered by the decision alone."""
    answer = "Ranked models, the route, the confidence and the distribution."
    return _described(_body(protocol, decision_only=True), answer)


def embeddings() -> dict[str, Any]:
    """`openapi_extra` of the embeddings call."""
    given = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]}
    properties = {"model": _MODEL, "input": given}
    schema = {"type": "object", "required": ["model", "input"], "properties": properties}
    return _described(schema, "Vectors, as the provider gave them.")


def checkpoint_change() -> dict[str, Any]:
    """`openapi_extra` of the checkpoint's change."""
    properties = {"checkpoint": {"type": "string", "description": "Folder on the server."}}
    schema = {
        "type": "object",
        "required": ["checkpoint"],
        "properties": properties,
        "additionalProperties": False,
    }
    return _described(schema, "The old version and the new.")


def query(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a call whose query is checked by a model."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": field}
            for name, field in schema["properties"].items()
        ],
        **_responses("What was found.", _NO_DATABASE),
    }


def of_body(kind: type[BaseModel], answer: str) -> dict[str, Any]:
    """`openapi_extra` of a call whose body is checked by a model, and that needs the database."""
    schema = kind.model_json_schema()
    inner = schema.pop("$defs", {})
    return _described(_inlined(schema, inner), answer, _NO_DATABASE)


def _inlined(schema: Any, inner: dict[str, Any]) -> Any:
    """A schema with what it refers to in place."""
    if isinstance(schema, list):
        return [_inlined(each, inner) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(inner[schema["$ref"].rpartition("/")[2]], inner)
    return {key: _inlined(value, inner) for key, value in schema.items()}


def components() -> dict[str, Any]:
    """Schemas that bodies refer to."""
    template = "#/components/schemas/{model}"
    schema = RoutingPreference.model_json_schema(ref_template=template)
    inner = schema.pop("$defs", {})
    return {**inner, "RoutingPreference": schema}
