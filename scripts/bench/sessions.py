"""What keeping a model saves an agent: the same work with sessions and without.

    python -m scripts.bench.sessions [--agents 16] [--tool-calls 30] [--turns 3]

Method: `--agents` agents work, four at once. Each is one conversation of `--turns` user turns, and
after each of them its share of `--tool-calls` calls of tools, whose results make the prompt grow.
Turns alternate between two tasks. The first has two models that are about as fast as each other and
is ranked by that (`prefer: fastest`), as where an owner lets latency choose: now the one is ahead,
now the other. The provider is simulated, on this machine: each of its models caches the prompts it
has read and tells so in its usage. Prices are of the usual order, US dollars per million tokens.
Decisions are made by a keyword. The first run has sessions as they are by default, the second none
(`implicit: false`). Money is what the server says of each answer; `saved_by_account` is what the
sessions say that they saved, against the same requests each at the model that was ranked first.

The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import httpx

from routing.conversation import Conversation
from routing.decision import Calibration, Decision, decide
from routing.tasks import Route
from scripts.bench.gateway.first_route import FirstRoute
from scripts.bench.prompt_cache import CachingProvider
from serving.app import create_app
from serving.config import ServerConfig

FAST_S, SLOW_S, SWING = 0.004, 0.02, 6
"""Seconds of an answer, and after how many of them a model of the first task changes its pace."""
AT_ONCE = 4
SYSTEM = "You are an agent that works on a repository with tools. " * 60
RESULT = "A line of a file that the agent has asked for, as tools print them.\n" * 40
PRICES = {
    "one": {"input": 3, "cached_input": 0.3, "output": 15},
    "two": {"input": 2.5, "cached_input": 0.25, "output": 12},
    "three": {"input": 1.25, "cached_input": 0.125, "output": 10},
}
MARGIN = 4.0

Answered = tuple[str, float]
"""A model, and US dollars."""


class ByKeyword(FirstRoute):
    """Chooses the route whose name the last turn holds."""

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        names = [route.name for route in routes]
        said = conversation.turns[-1].text
        scores = [MARGIN if name in said else 0.0 for name in names]
        return decide(names, [*scores, 0.0], Calibration())


def main() -> None:
    parser = argparse.ArgumentParser(description="What sessions save an agent.")
    parser.add_argument("--agents", type=int, default=16)
    parser.add_argument("--tool-calls", type=int, default=30)
    parser.add_argument("--turns", type=int, default=3)
    print(json.dumps(asyncio.run(_compare(parser.parse_args()))))


async def _compare(arguments: argparse.Namespace) -> dict[str, Any]:
    results = {
        "with_sessions": await _run(arguments, {}),
        "without": await _run(arguments, {"implicit": False}),
    }
    for name, result in results.items():
        print(name, result, flush=True)
    kept, free = (result["dollars"] for result in results.values())
    return {
        "agents": arguments.agents,
        "tool_calls": arguments.tool_calls,
        "turns": arguments.turns,
        **results,
        "saved_dollars": round(free - kept, 4),
        "saved_percent": round(100 * (free - kept) / free, 1),
    }


async def _run(arguments: argparse.Namespace, sessions: dict[str, Any]) -> dict[str, Any]:
    provider = CachingProvider(_pace)
    await provider.start()
    app = create_app(_config(provider.url, sessions), engine=ByKeyword(), environ={})
    try:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            at_once = asyncio.Semaphore(AT_ONCE)
            async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:

                async def work(number: int) -> list[list[Answered]]:
                    async with at_once:
                        return await _work(client, arguments, number)

                used = await asyncio.gather(*map(work, range(arguments.agents)))
            account = app.state.gateway.sessions
    finally:
        await provider.stop()
    return {
        "dollars": round(sum(cost for turns in used for turn in turns for _, cost in turn), 4),
        "requests": len(provider.asked),
        "cached_share": round(provider.cached_tokens / provider.prompt_tokens, 3),
        "switches_in_tool_loops": sum(
            a[0] != b[0] for turns in used for turn in turns for a, b in pairwise(turn)
        ),
        "saved_by_account": round(account.saved - account.lost, 4),
    }


async def _work(
    client: httpx.AsyncClient, arguments: argparse.Namespace, number: int
) -> list[list[Answered]]:
    """One agent's conversation, turn by turn."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
    used: list[list[Answered]] = []
    for turn in range(arguments.turns):
        task = ("coding", "writing")[turn % 2]
        messages.append({"role": "user", "content": f"Agent {number}, {task} now: step {turn}."})
        used.append([await _ask(client, messages)])
        for call in range(arguments.tool_calls // arguments.turns):
            function = {"name": "read", "arguments": "{}"}
            made = [{"id": f"c{turn}-{call}", "type": "function", "function": function}]
            messages += [
                {"role": "assistant", "content": None, "tool_calls": made},
                {"role": "tool", "tool_call_id": f"c{turn}-{call}", "content": RESULT},
            ]
            used[-1].append(await _ask(client, messages))
        messages.append({"role": "assistant", "content": "Done."})
    return used


async def _ask(client: httpx.AsyncClient, messages: list[dict[str, Any]]) -> Answered:
    body = {"model": "router:agent", "messages": messages}
    answer = await client.post("/v1/chat/completions", json=body)
    answer.raise_for_status()
    return answer.headers["x-pointsman-model"], float(answer.headers["x-pointsman-cost"])


def _pace(model: str, number: int) -> float:
    """The two models of the first task are slow in turns."""
    return SLOW_S if (number // SWING + (model == "two")) % 2 else FAST_S


def _config(url: str, sessions: dict[str, Any]) -> ServerConfig:
    def task(name: str, *models: str) -> dict[str, Any]:
        described = {"name": name, "description": f"Anything about {name}."}
        return {"custom_task": described, "models": models}

    policies = [
        {**task("coding", "one", "two"), "selection_policy": {"prefer": "fastest"}},
        task("writing", "three"),
    ]
    return ServerConfig.model_validate(
        {
            "providers": {"p": {"base_url": url}},
            "models": {
                name: {"provider": "p", "model": name, "price": price}
                for name, price in PRICES.items()
            },
            "routers": [{"name": "agent", "policies": policies, "fallback_models": ["three"]}],
            # A server under load learns in seconds what a quiet one learns in minutes.
            "latency": {"half_life_s": 0.2, "explore_every": 2, "stale_after_s": 0.5},
            "sessions": sessions,
        }
    )


if __name__ == "__main__":
    main()
