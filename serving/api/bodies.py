"""Bodies of calls that are the server's own: read under the cap, and checked by a model."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from serving.config import Limits
from serving.errors import bad_request, field_path, validation_lines
from serving.requests import read_body

B = TypeVar("B", bound=BaseModel)


async def body_of(request: Request, limits: Limits, kind: type[B]) -> B:
    """The body as a model; raises ApiError 400, without repeating values, which may be secret."""
    body = await read_body(request, limits)
    try:
        return kind.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body is not JSON: {error}", None) from None
    except ValidationError as error:
        at = field_path(error.errors(include_url=False, include_input=False)[0]["loc"])
        raise bad_request(validation_lines(error)[0], at or None) from None
