"""Wire types: what a request may ask for, and the JSON of answers, chunks and errors.

Names follow https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routing.conversation import Conversation, normalise
from routing.errors import InvalidRequest

MODELS: dict[str, float] = {
    "smollm2-135m-instruct": 0.7,
    "smollm2-135m-instruct-precise": 0.0,
    "smollm2-135m-instruct-creative": 1.0,
}
"""Ids, all with the same weights, and their temperature where a request names none."""

DEFAULT_MAX_TOKENS = 128


class RequestError(Exception):
    """A request that gets an error in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        elif self.status >= 500:
            kind = "server_error"
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


class _ResponseFormat(BaseModel):
    type: Literal["text"]


_Stop = Annotated[str, Field(min_length=1)]
_Positive = Annotated[int, Field(ge=1)]
_Penalty = Annotated[float, Field(ge=-2, le=2)]


class _Body(BaseModel):
    # Other fields are a newer API's, or of no meaning to one small model.
    model_config = ConfigDict(extra="ignore")

    model: str
    messages: Any
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] | None = None
    seed: int | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    response_format: _ResponseFormat | None = None
    tool_choice: Literal["auto", "none"] | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float
    top_p: float = 1.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request that passed every check."""

    model: str
    conversation: Conversation
    sampling: Sampling
    max_tokens: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


def parse_request(data: Any) -> ChatRequest:
    """Check a decoded body; raises RequestError naming the field."""
    if not isinstance(data, dict):
        raise RequestError(400, "the body must be a JSON object")
    try:
        body = _Body.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise RequestError(400, f"{field}: {first['msg']}", param=field) from None
    if body.model not in MODELS:
        known = ", ".join(MODELS)
        raise RequestError(
            404,
            f"the model {body.model!r} does not exist; this server has {known}",
            param="model",
            code="model_not_found",
        )
    if body.stream_options is not None and not body.stream:
        raise RequestError(400, "stream_options needs stream: true", param="stream_options")
    try:
        conversation = normalise(body.messages)
    except InvalidRequest as error:
        raise RequestError(400, error.message, param=error.field) from None
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    temperature = MODELS[body.model] if body.temperature is None else body.temperature
    return ChatRequest(
        model=body.model,
        conversation=conversation,
        sampling=Sampling(
            temperature=temperature,
            top_p=body.top_p or 1.0,
            seed=body.seed,
            frequency_penalty=body.frequency_penalty or 0.0,
            presence_penalty=body.presence_penalty or 0.0,
        ),
        max_tokens=body.max_completion_tokens or body.max_tokens or DEFAULT_MAX_TOKENS,
        stop=stop,
        stream=bool(body.stream),
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )


class Answer:
    """The JSON bodies of one completion, which share id, time and model."""

    def __init__(self, model: str, prompt_tokens: int) -> None:
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self._prompt_tokens = prompt_tokens

    def whole(self, text: str, finish_reason: str, completion_tokens: int) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        usage = self._usage(completion_tokens)
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage}

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """One event of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}

    def usage_chunk(self, completion_tokens: int) -> dict[str, Any]:
        """The last event of a stream that asked for usage: no choices."""
        usage = self._usage(completion_tokens)
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage}

    def _usage(self, completion_tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self._prompt_tokens + completion_tokens,
        }


def model_list(created: int) -> dict[str, Any]:
    """The body of GET /v1/models."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": created, "owned_by": "pointsman-local"}
            for name in MODELS
        ],
    }
