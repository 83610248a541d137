"""What answers teach the ranking, through the server."""

from __future__ import annotations

from typing import Any

from serving_fakes import Behaviour, FakeEngine, FakeUpstream, Running, config_for, serving, task
from test_accounting import settled

from serving.needs import Need

WHOLE = Need(prompt_tokens=10)


def pool(*models: str, prefer: str) -> list[dict[str, Any]]:
    policies = [task("coding", *models, prefer=prefer)]
    return [{"name": "work", "policies": policies, "fallback_models": ["p/last"]}]


async def models_of(server: Running) -> list[str]:
    decided = await server.decision({"model": "router:work"})
    found: list[str] = decided.json()["models"]
    return found


async def test_a_model_that_fails_is_no_longer_thought_fast(upstream: FakeUpstream):
    upstream.models["dead"] = Behaviour("error", 500)
    routers = pool("p/dead", "p/alive", prefer="fastest")
    breaker = {"failures": 1000}
    config = config_for(upstream, routers=routers, breaker=breaker, latency={"explore_every": 0})
    async with serving(config, FakeEngine(), upstream) as server:
        assert (await models_of(server))[0] == "p/dead"
        for _ in range(3):
            await server.chat("coding please")
        assert (await models_of(server))[:2] == ["p/alive", "p/dead"]
    assert upstream.asked == ["dead", "alive", "alive", "alive"]


async def test_the_length_of_answers_decides_what_is_cheapest(upstream: FakeUpstream):
    """Dear to read and cheap to write wins once answers are known to be long, and not before."""
    models = {
        "reads-cheaply": {
            "provider": "p",
            "model": "terse",
            "price": {"input": 1, "output": 10},
        },
        "writes-cheaply": {
            "provider": "p",
            "model": "wordy",
            "price": {"input": 1000, "output": 5},
        },
    }
    routers = pool("reads-cheaply", "writes-cheaply", prefer="cheapest")
    config = config_for(upstream, routers=routers, models=models)
    async with serving(config, FakeEngine(), upstream) as server:
        assert (await models_of(server))[0] == "reads-cheaply"
        await server.chat("coding please")
        await settled(server, 1)
        ranking = server.app.state.gateway.ranking
        assert ranking.outputs.expected_output("reads-cheaply", "coding", WHOLE) == 7
        usage = {"prompt_tokens": 11, "completion_tokens": 100_000, "total_tokens": 100_011}
        upstream.models["terse"] = Behaviour(
            answer={"id": "c", "object": "chat.completion", "choices": [], "usage": usage}
        )
        await server.chat("coding please")
        await settled(server, 2)
        assert (await models_of(server))[0] == "writes-cheaply"


async def test_a_stream_teaches_how_fast_tokens_come(upstream: FakeUpstream):
    async with serving(config_for(upstream), FakeEngine(), upstream) as server:
        await server.chat(model="p/m", stream=True)
        await settled(server, 1)
        latencies = server.app.state.gateway.ranking._latency
        need = Need(prompt_tokens=10, stream=True)
        short, long = (latencies.expected_seconds("p/m", need, n) for n in (10, 10_000))
    assert short is not None
    assert long > short
    assert latencies.expected_seconds("p/m", WHOLE, 10) is None
