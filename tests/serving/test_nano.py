"""The released nano checkpoint through the HTTP interface: presets, decisions, answers, sessions.

One server for the module: the real embedded engine, the real presets, and a fake provider that
stands for the local upstream, so that no text has to be generated.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving_fakes import FakeUpstream, until_answers

from serving.app import create_app
from serving.config import load_config
from serving.listening import make_server
from serving.run import with_overrides

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Nano:
    """A running server and its fake provider."""

    url: str
    http: httpx.Client
    upstream: FakeUpstream

    def decide(self, router: str, *texts: str, **fields: Any) -> dict[str, Any]:
        """The decision about the last of some user turns."""
        messages: list[dict[str, str]] = []
        for text in texts:
            messages += [
                {"role": "user", "content": text},
                {"role": "assistant", "content": "Here you are."},
            ]
        body = {"model": f"router:{router}", "messages": messages[:-1], **fields}
        answer = self.http.post("/routing/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def server(base_folder: Path) -> Iterator[Nano]:
    """`configs/serve.yaml` as it is, on a thread of its own with a loop of its own."""
    config = with_overrides(
        load_config(ROOT / "configs" / "serve.yaml"), host=None, port=0, base=base_folder
    )
    # Loaded machines decide slowly; what the time limit does is tested with a fake engine.
    limits = config.limits.model_copy(update={"decision_timeout_ms": 60_000})
    config = config.model_copy(update={"limits": limits, "storage": None})
    started, stop = threading.Event(), asyncio.Event()
    box: dict[str, Any] = {}

    async def run() -> None:
        upstream = FakeUpstream()
        await upstream.start()
        app = create_app(config, environ={"POINTSMAN_LOCAL_URL": upstream.url})
        granian = make_server(app, "127.0.0.1", config.listen.port)
        task = asyncio.create_task(granian.serve())
        url = f"http://127.0.0.1:{config.listen.port}"
        for _ in range(20):  # loading takes seconds, on a busy machine many
            try:
                await until_answers(url + "/readyz")
                break
            except TimeoutError:
                continue
        box.update(url=url, upstream=upstream, loop=asyncio.get_running_loop())
        started.set()
        await stop.wait()
        granian.stop()
        await asyncio.wait_for(task, 20)
        await upstream.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(150), "the server did not become ready"
    with httpx.Client(base_url=box["url"], timeout=90) as http:
        yield Nano(box["url"], http, box["upstream"])
    box["loop"].call_soon_threadsafe(stop.set)
    thread.join(30)


def test_every_preset_router_is_served(server: Nano) -> None:
    listed = {model["id"] for model in server.http.get("/v1/models").json()["data"]}
    names = {"software-engineering", "general", "writing", "knowledge-base"}
    assert {f"router:{name}" for name in names} <= listed


def test_a_decision_is_a_distribution_over_the_routers_tasks(server: Nano) -> None:
    answer = server.decide("writing", "Write a poem about the autumn wind.")
    shares = answer["distribution"]
    assert len(shares) == 7
    assert sum(shares.values()) == pytest.approx(1)
    assert answer["confidence"] == shares[answer["route"] or "none"]
    assert answer["route"] == "creative_writing"
    assert answer["models"]


def test_the_last_turn_decides_and_earlier_ones_are_read(server: Nano) -> None:
    billing = {
        "name": "refunds",
        "description": "The customer wants their money back for an order.",
        "models": ["m1"],
    }
    weather = {
        "name": "weather_forecast",
        "description": "Tell the weather in a place on a day.",
        "models": ["m2"],
    }
    tickets = {
        "name": "book_flight",
        "description": "Book a plane ticket from one city to another.",
        "models": ["m3"],
    }
    fields = {"routing_preferences": [billing, weather, tickets]}
    turns = [
        "What will the weather be like in Oslo on Friday?",
        "And on Saturday?",
        "Then book me a flight there, please.",
    ]
    chosen = [server.decide("general", *turns[: n + 1], **fields)["route"] for n in range(3)]
    assert chosen == ["weather_forecast", "weather_forecast", "book_flight"]


def test_what_fits_no_task_goes_to_the_fallbacks(server: Nano) -> None:
    preference = {
        "name": "tire_pressure",
        "description": "Report the air pressure of the car's tires.",
        "models": ["m1"],
    }
    other = {
        "name": "card_limit",
        "description": "Raise the limit of a credit card.",
        "models": ["m2"],
    }
    answer = server.decide(
        "general",
        "who painted the ceiling of the sistine chapel",
        routing_preferences=[preference, other],
    )
    assert answer["route"] is None
    assert answer["reason"] == "no_task_matches"
    assert answer["models"]
    assert not {"m1", "m2"} & set(answer["models"])


def test_asking_again_gives_the_same_answer(server: Nano) -> None:
    first = server.decide("software-engineering", "My loop never ends, what is wrong with it?")
    again = server.decide("software-engineering", "My loop never ends, what is wrong with it?")
    assert again["distribution"] == first["distribution"]


def test_a_tool_loop_keeps_its_route(server: Nano) -> None:
    opening = [{"role": "user", "content": "Fix the failing test in this repository."}]
    loop = [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "a poem about summer.txt"},
    ]
    answers = [
        server.http.post(
            "/routing/v1/chat/completions",
            json={"model": "router:software-engineering", "messages": messages},
        ).json()
        for messages in (opening, opening + loop)
    ]
    first, second = answers
    assert first["route"] == second["route"] is not None
    assert first["models"] == second["models"]
    assert first["session_id"] == second["session_id"]
    assert (first["pinned"], second["pinned"]) == (False, True)


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_sdk_is_answered_by_the_chosen_model(server: Nano, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
    raw = client.chat.completions.with_raw_response.create(
        model="router:writing",
        messages=[{"role": "user", "content": "Write a poem about the autumn wind."}],
        stream=stream,
    )
    assert raw.headers["x-model-router-selected-route"] == "creative_writing"
    assert 0 < float(raw.headers["x-pointsman-confidence"]) <= 1
    # The stand-in of creative writing, since no provider has a key.
    assert raw.headers["x-pointsman-model"] == "local/smollm2-135m-instruct-creative"
    parsed: Any = raw.parse()
    text = (
        "".join(chunk.choices[0].delta.content or "" for chunk in parsed)
        if stream
        else parsed.choices[0].message.content
    )
    assert text.strip() == "Hello, world!"


def test_half_a_megabyte_is_routed(server: Nano) -> None:
    text = "Correct the grammar of this text: " + "me and him was going home. " * 19_000
    assert len(text) > 500_000
    answer = server.decide("writing", text)
    assert answer["distribution"] is not None


def test_odd_names_and_descriptions_work(server: Nano) -> None:
    odd = [
        {"name": 'it\'s "quoted"', "description": "Line one\nline two\t'x'", "models": ["m"]},
        {"name": "größe/測試 🚂", "description": '<|im_end|> {json: "yes"}', "models": ["m"]},
    ]
    answer = server.decide("general", "hello there", routing_preferences=odd)
    assert set(answer["distribution"]) == {odd[0]["name"], odd[1]["name"], "none"}


def test_more_routes_than_the_model_reads_are_shortlisted(server: Nano) -> None:
    topics = ["cooking", "poems", "tax returns", "train tickets", "plants", "guitars"]
    many = [
        {"name": f"r{n}", "description": f"{topics[n % 6]} " * 40, "models": ["m"]}
        for n in range(60)
    ]
    body = {
        "model": "router:general",
        "messages": [{"role": "user", "content": "How do I prune my roses in spring?"}],
        "routing_preferences": many,
    }
    answer = server.http.post("/routing/v1/chat/completions", json=body)
    assert answer.status_code == 200
    distribution = answer.json()["distribution"]
    assert list(distribution) == [*(each["name"] for each in many), "none"]
    read = {name for name, share in distribution.items() if share > 0}
    assert 4 < len(read) <= 25
    assert {f"r{n}" for n in range(4, 60, 6)} <= read  # all that is about plants


def test_health_answers_while_decisions_are_made(server: Nano) -> None:
    def busy(number: int) -> None:
        server.decide("general", f"Question {number}: " + "why is the sky blue? " * 60)

    threads = [threading.Thread(target=busy, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    answers = 0
    while any(thread.is_alive() for thread in threads):
        assert server.http.get("/healthz").status_code == 200
        answers += 1
    assert answers > 3


@pytest.mark.skipif(not os.environ.get("POINTSMAN_BENCHMARKS"), reason="no benchmarks given")
def test_evaluation_through_the_server_agrees_with_the_checkpoint(
    server: Nano, nano: Path, base_folder: Path
) -> None:
    from training.evaluation.benchmark import read_benchmark
    from training.evaluation.endpoint import EndpointDecider
    from training.scoring import ModelDecider

    file = Path(os.environ["POINTSMAN_BENCHMARKS"]) / "sgd_dev.jsonl"
    conversations = read_benchmark(file, limit=12).conversations
    direct = ModelDecider.from_checkpoint(nano, base_folder).decide_all(conversations)
    served = EndpointDecider(server.url).decide_all(conversations)
    for left, right in zip(direct, served, strict=True):
        for one, other in zip(left, right, strict=True):
            assert one.route == other.route
            assert one.confidence == pytest.approx(other.confidence, abs=1e-3)
