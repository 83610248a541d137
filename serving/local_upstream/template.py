"""A model's chat template, rendered as transformers renders it, without importing that."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE_FILE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"

Messages = Sequence[Mapping[str, str]]


def chat_template(folder: Path) -> Callable[[Messages], str]:
    """What writes messages, and the beginning of the reply, for the model in `folder`.

    Raises OSError, ValueError or jinja2.TemplateError where there is no template that can be read.
    """
    config = json.loads((folder / TOKENIZER_CONFIG).read_text())
    file = folder / TEMPLATE_FILE
    source = file.read_text() if file.is_file() else config.get("chat_template")
    if not isinstance(source, str):
        raise ValueError(f"{folder} has no chat template")
    # https://huggingface.co/docs/transformers/chat_templating: what templates may count on.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    template = environment.from_string(source)
    tokens = {name: _text(config.get(name)) for name in config if name.endswith("_token")}

    def render(messages: Messages) -> str:
        return template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **tokens
        )

    return render


def _text(token: Any) -> Any:
    """A special token is written as its text, or as an object that has it."""
    return token.get("content") if isinstance(token, dict) else token


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
