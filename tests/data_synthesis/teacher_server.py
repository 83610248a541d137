"""A scripted endpoint in OpenAI's format: it answers well, except where a test plants a fault."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from data_synthesis.teacher.run import run_teacher

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-very-secret-0123456789"
KEY_VARIABLE = "TEACHER_TEST_KEY"

Body = dict[str, Any]
Fault = Callable[[web.Request, str], web.StreamResponse | Body | str | None]
"""From a request and its prompt: a response, a completion, a text to answer, or None: no fault."""


def recipe_values(url: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "test",
        "licence": "CC0-1.0",
        "seed": 3,
        "base_url": f"{url}/v1",
        "model": "writer",
        "key_variable": KEY_VARIABLE,
        "concurrency": 4,
        "backoff_s": 0.01,
        "timeout_s": 20,
        "max_tokens": 1000,
        "prices": {"input": 1.0, "output": 2.0},
        "spend_cap": 100.0,
        "domains": ["hotel_and_hospitality_service"],
        "dialogues_per_topic": 3,
        "turns": {"low": 2, "high": 4},
        "prompts": str(ROOT / "configs/teacher/prompts"),
        "taxonomy": "taxonomy",
    }
    return {**values, **changes}


def write_recipe(folder: Path, url: str, **changes: Any) -> Path:
    """A recipe in `folder`, beside a taxonomy of one domain, which is quick to read."""
    domain = "hotel_and_hospitality_service.yaml"
    text = (ROOT / "configs/taxonomy" / domain).read_text()
    (folder / "taxonomy").mkdir(exist_ok=True)
    alone = re.sub(r", [a-z_]+/[a-z_]+\]", "]", text)
    (folder / "taxonomy" / domain).write_text(alone)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_values(url, **changes)))
    return path


@dataclass
class TeacherServer:
    """What was asked, and what is to go wrong."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    """Used up one a request, in order; afterwards all is well."""
    always: Fault | None = None
    """Asked for each request that `faults` leaves alone."""
    bodies: list[Body] = field(default_factory=list)
    authorisations: set[str] = field(default_factory=set)
    under_way: int = 0
    most_under_way: int = 0

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.authorisations.add(request.headers.get("Authorization", ""))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0.01)  # so that requests can overlap
            prompt = body["messages"][-1]["content"]
            fault = self.faults.pop(0) if self.faults else self.always
            found = fault(request, prompt) if fault else None
            if asyncio.iscoroutine(found):
                found = await found
            if isinstance(found, web.StreamResponse):
                return found
            if isinstance(found, dict):
                return web.json_response(found)
            return web.json_response(completion(found or good_answer(prompt)))
        finally:
            self.under_way -= 1


def completion(text: str | None, finish: str = "stop", refusal: str | None = None) -> Body:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 200, "total_tokens": 300},
    }


def good_answer(prompt: str) -> str:
    """A sound answer to any stage's prompt, told apart by what the templates ask for."""
    labels = re.findall(r"^- ([a-z_]+): ", _between(prompt, "Tasks:", "\n\n", 2), re.M)
    if "You define the tasks" in prompt:
        count = int(re.search(r"Write (\d+) tasks", prompt)[1])  # type: ignore[index]
        policies = [{"name": f"Bake loaf {_word(i)}", "description": f"d{i}"} for i in range(count)]
        return json.dumps({"policies": policies})
    if "were drafted for the subject" in prompt:
        names = re.findall(r"^- (bake_[a-z_]+): ", prompt, re.M)
        return json.dumps({"policies": [_refined(name, names) for name in names]})
    if "You check the labels" in prompt:
        return judge(prompt)
    if "hard cases" in prompt:
        count = int(re.search(r"Write (\d+) hard", prompt)[1])  # type: ignore[index]
        return json.dumps({"cases": [_case(i, labels) for i in range(count)]})
    turns = int(re.search(r"It has (\d+) user turns", prompt)[1])  # type: ignore[index]
    return dialogue(labels, turns)


def dialogue(labels: list[str], turns: int, extra: str = "") -> str:
    lines = []
    for number in range(turns):
        label = "none" if number == turns - 1 else labels[number % 2]
        content = f"{extra}Please do {label}, number {number}."
        lines.append({"role": "user", "content": content, "task": label})
        lines.append({"role": "assistant", "content": "Done.", "task": ""})
    return json.dumps({"turns": lines[:-1]})


def judge(prompt: str) -> str:
    """Accepts all but messages that say MISFIT."""
    verdicts = []
    for number, label, text in re.findall(r"^\[(\d+)\] user, label (\S+): (.*)$", prompt, re.M):
        bad = "MISFIT" in text
        verdicts.append(
            {
                "number": int(number),
                "fits": not bad,
                "better": "none" if bad else label,
                "objection": "Nobody would say so." if bad else "",
            }
        )
    return json.dumps({"verdicts": verdicts})


def _between(text: str, start: str, end: str, nth: int) -> str:
    _, _, rest = text.partition(start)
    return "".join(rest.split(end)[:nth])


def _word(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number] * 2


def _refined(name: str, names: list[str]) -> Body:
    return {
        "name": name,
        "description": f"Everything about {name}.",
        "alternative_names": [f"{name} other", names[0]],
        "paraphrases": ["Short.", "Longer words."],
        "neighbours": [other for other in names if other != name][:1],
    }


def _case(number: int, labels: list[str]) -> Body:
    kind = ("border", "out_of_scope", "follow_up")[number % 3]
    label = "none" if kind == "out_of_scope" else labels[number % len(labels)]
    before = [
        {"role": "user", "content": f"First {number}.", "task": labels[0]},
        {"role": "assistant", "content": "Yes.", "task": ""},
    ]
    return {
        "kind": kind,
        "before": before if kind == "follow_up" else [],
        "content": f"Case {number} about {labels[number % 2]}.",
        "task": label,
    }


@contextmanager
def serving() -> Iterator[TeacherServer]:
    """A server in a thread of its own, on a free port of the loopback interface."""
    server = TeacherServer()
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def run(recipe: Path, output: Path) -> dict[str, Any]:
    """A run of the teacher that tells nobody how far it is."""
    return run_teacher(recipe, output, lambda status: None)
