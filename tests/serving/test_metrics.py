"""What `/metrics` says, and that README describes all of it."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from serving_fakes import Running

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


async def scrape(server: Running) -> dict[str, float]:
    """Samples by name with labels."""
    answer = await server.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_decisions_are_counted_by_outcome(server: Running) -> None:
    before = await scrape(server)
    assert before["pointsman_engine_ready"] == 1
    await server.chat("coding please")
    await server.chat("nothing of the kind")
    await server.chat("coding please")
    server.engine.script = None  # type: ignore[assignment]
    await server.chat("coding again")
    after = await scrape(server)
    assert after["pointsman_decisions_total[decided]"] == 2
    assert after["pointsman_decisions_remembered_total"] == 1
    assert after["pointsman_decisions_total[no_task_matches]"] == 1
    assert after["pointsman_decisions_total[engine_error]"] == 1
    assert after["pointsman_decision_seconds_count"] == 4
    assert after["pointsman_engine_decisions_total"] == 3
    assert after["pointsman_checkpoint[0123456789ab]"] == 1


async def test_an_engine_in_trouble_is_not_ready(server: Running) -> None:
    server.engine.ill = "vLLM died"
    assert (await scrape(server))["pointsman_engine_ready"] == 0
    answer = await server.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["not_ready"] == {"engine": "vLLM died"}
    routed = await server.chat("coding please")
    assert routed.status_code == 200
    assert (await scrape(server))["pointsman_decisions_total[engine_not_ready]"] == 1
    server.engine.ill = None
    assert (await server.http.get("/readyz")).status_code == 200


async def test_every_metric_is_described(server: Running) -> None:
    await server.chat("coding please")
    answer = await server.http.get("/metrics")
    for family in text_string_to_metric_families(answer.text):
        name = family.name + ("_total" if family.type == "counter" else "")
        if name.startswith("pointsman_"):
            assert f"`{name}`" in README, name
        assert family.documentation
    told = set(re.findall(r"`(pointsman_[a-z_]+)`", README))
    assert told <= {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(answer.text)
    }


async def test_labels_hold_no_words_of_clients(server: Running) -> None:
    await server.chat("canary-in-a-prompt", model="router:work")
    await server.chat("hello", model="router:canary-in-a-name")
    assert "canary" not in (await server.http.get("/metrics")).text
