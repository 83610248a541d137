"""Hold conversations with a running server through the `openai` SDK; print what went where.

    python -m scripts.transcript http://127.0.0.1:8080 [conversations.yaml]

Each conversation is a router and the user's turns; the assistant's turns are the server's own
answers. The output is the Markdown table of the README.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from openai import OpenAI

CONVERSATIONS = Path(__file__).resolve().parents[1] / "configs" / "transcript.yaml"


def main() -> None:
    """Print one table a conversation."""
    url, *rest = sys.argv[1:] or ["http://127.0.0.1:8080"]
    client = OpenAI(base_url=f"{url}/v1", api_key="unused")
    for conversation in yaml.safe_load(Path(rest[0] if rest else CONVERSATIONS).read_text()):
        print(f"`router:{conversation['router']}`\n")
        print("| user | task | confidence | answered by |\n| --- | --- | --- | --- |")
        hold(client, conversation["router"], conversation["turns"])
        print(flush=True)


def hold(client: OpenAI, router: str, turns: list[str]) -> None:
    """One conversation; every other answer is streamed."""
    messages: list[Any] = []
    for number, text in enumerate(turns):
        messages.append({"role": "user", "content": text})
        ask: Any = client.chat.completions.with_raw_response.create
        if number % 2:
            raw = ask(model=f"router:{router}", messages=messages, max_tokens=40, stream=True)
            answer = "".join(
                chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices
            )
        else:
            raw = ask(model=f"router:{router}", messages=messages, max_tokens=40)
            answer = raw.parse().choices[0].message.content or ""
        messages.append({"role": "assistant", "content": answer})
        said = raw.headers
        cells = [
            text,
            f"`{said['x-model-router-selected-route']}`",
            said.get("x-pointsman-confidence", "–"),
            f"`{said['x-pointsman-model']}`",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
