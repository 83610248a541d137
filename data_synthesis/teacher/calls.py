"""One question to the teacher and its reply, independent of how it is sent."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

Stage = Literal["policies", "refine", "dialogue", "edge", "judge"]
Finish = Literal["stop", "length", "refusal", "filter"]


@dataclass(frozen=True, slots=True)
class Call:
    """A question; equal questions have equal keys."""

    stage: Stage
    unit: str
    """What it is asked for, so that two dialogues with one prompt stay two calls."""
    messages: tuple[tuple[str, str], ...]
    """Roles and contents."""
    schema_name: str
    schema: str
    """JSON schema of the answer, as JSON."""
    plain: str
    """Follows the prompt where the endpoint cannot be held to a schema."""
    model: str
    max_tokens: int
    temperature: float
    attempt: int
    """Counts from 0 within a unit and stage, over rewriting and repair."""

    @property
    def key(self) -> str:
        """Hash of stage, unit, prompt, schema, model, parameters and attempt; 64 hex digits."""
        facts = [
            self.stage,
            self.unit,
            self.messages,
            self.schema,
            self.model,
            self.max_tokens,
            self.temperature,
            self.attempt,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, estimated on the high side: three characters each."""
        characters = sum(len(text) for _, text in self.messages)
        return (characters + max(len(self.schema), len(self.plain))) // 3 + 16

    def body(self, *, json_schema: bool) -> dict[str, Any]:
        """Body of the request, which holds the answer to the schema or asks for it in words."""
        messages = [{"role": role, "content": text} for role, text in self.messages]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        if json_schema:
            schema = {"name": self.schema_name, "strict": True, "schema": json.loads(self.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            messages[-1]["content"] += "\n\n" + self.plain
        return body


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back and what it used up; tokens are those that the endpoint counted."""

    text: str
    finish: Finish
    input_tokens: int
    output_tokens: int


def read_reply(body: object, call: Call) -> Reply:
    """A reply from the body of a chat completion; raises ValueError if it is none.

    Where the endpoint counts no tokens, four characters are taken as one.
    """
    if not isinstance(body, dict):
        raise ValueError("the answer is no JSON object")
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ValueError("the answer has no choices[0].message")
    content, refusal = message.get("content"), message.get("refusal")
    text = content if isinstance(content, str) else ""
    finish: Finish = "stop"
    if choice.get("finish_reason") == "content_filter":
        finish = "filter"
    elif isinstance(refusal, str) and refusal:
        finish, text = "refusal", refusal
    elif choice.get("finish_reason") == "length":
        finish = "length"
    usage = body.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    return Reply(
        text,
        finish,
        _tokens(counted.get("prompt_tokens"), sum(len(part) for _, part in call.messages)),
        _tokens(counted.get("completion_tokens"), len(text)),
    )


def _tokens(counted: object, characters: int) -> int:
    return counted if isinstance(counted, int) and counted >= 0 else characters // 4 + 1
