"""The stages on Ray Data: a local cluster asks a scripted endpoint through the HTTP processor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import teacher_server
from aiohttp import web
from teacher_server import KEY, KEY_VARIABLE, ROOT, TeacherServer, write_recipe

from data_synthesis.teacher.calls import Call
from data_synthesis.teacher.errors import EndpointError
from data_synthesis.teacher.ray_stage import RayDriver, vllm_result, vllm_row
from data_synthesis.teacher.recipe import load_teacher_recipe
from data_synthesis.teacher.run import run_teacher

CALL = Call(
    "dialogue",
    "unit",
    (("user", "Write."),),
    schema_name="dialogue",
    schema='{"type":"object"}',
    plain="JSON please",
    model="writer",
    max_tokens=50,
    temperature=0.5,
    attempt=0,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    reason = "Ray is an optional extra: pip install pointsman[ray]"
    ray = pytest.importorskip("ray", reason=reason)
    pytest.importorskip("ray.data.llm", reason=reason)
    with pytest.MonkeyPatch.context() as patch:
        # Workers inherit both: the key stays out of what is sent to them.
        patch.setenv(KEY_VARIABLE, KEY)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


@pytest.fixture
def server(cluster: Any) -> Iterator[TeacherServer]:
    with teacher_server.serving() as running:
        yield running


def on_ray(recipe: Path, output: Path) -> dict[str, Any]:
    driver = RayDriver(load_teacher_recipe(recipe))
    return run_teacher(recipe, output, lambda status: None, driver)


@pytest.mark.timeout(180)
def test_ray_and_http_write_the_same(server: TeacherServer, tmp_path: Path) -> None:
    def planted(request: web.Request, prompt: str) -> Any:
        if "Write a conversation" in prompt and "turned down" not in prompt:
            good = json.loads(teacher_server.good_answer(prompt))
            good["turns"][0]["content"] = "MISFIT"
            return json.dumps(good)
        return None

    server.always = planted
    server.faults = [
        lambda request, prompt: web.Response(status=429, headers={"Retry-After": "0.1"}),
        lambda request, prompt: web.Response(status=500),
        lambda request, prompt: "no JSON",
    ]
    recipe = write_recipe(tmp_path, server.url, edge_cases_per_topic=6, concurrency=4)
    facts = on_ray(recipe, tmp_path / "ray")
    assert facts["stopped"] is None
    assert facts["counts"]["dialogues"] == 3 + 2
    assert facts["turned_down"]["rejected_dialogues"] == 3
    assert facts["turned_down"]["unreadable_invalid"] == 1
    assert server.authorisations == {f"Bearer {KEY}"}
    assert server.most_under_way > 1
    assert len(server.bodies) == facts["counts"]["calls"] + 2
    assert KEY.encode() not in (tmp_path / "ray" / "ledger.jsonl").read_bytes()

    # A run over HTTP takes up the ledger: nothing is left to ask, and the bytes are the same.
    asked = len(server.bodies)
    before = {p.name: p.read_bytes() for p in (tmp_path / "ray").iterdir()}
    assert run_teacher(recipe, tmp_path / "ray", lambda status: None)["complete"]
    assert len(server.bodies) == asked
    assert {p.name: p.read_bytes() for p in (tmp_path / "ray").iterdir()} == before


def test_the_cap_and_a_refusal_stop_it(server: TeacherServer, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, server.url, prices=None, spend_cap=None, token_cap=4000, dialogues_per_topic=8
    )
    facts = on_ray(recipe, tmp_path / "out")
    assert "token_cap 4000" in facts["stopped"]
    assert 0 < 300 * len(server.bodies) <= 4000

    server.always = lambda request, prompt: web.Response(status=401, text=f"bad {KEY}")
    with pytest.raises(EndpointError, match=r"status 401: bad \[key\]"):
        on_ray(write_recipe(tmp_path, server.url, dialogues_per_topic=1), tmp_path / "refused")


def test_what_the_vllm_stage_is_given(cluster: Any, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        "http://127.0.0.1:1",
        ray={
            "engine": "vllm",
            "workers": 2,
            "sources": {"writer": "/models/writer"},
            "engine_kwargs": {"max_model_len": 8192},
        },
    )
    config = RayDriver(load_teacher_recipe(recipe)).vllm_config("writer")
    assert config.model_source == "/models/writer"
    assert config.engine_kwargs["max_model_len"] == 8192
    assert config.concurrency == 2


def test_rows_of_the_vllm_stage() -> None:
    row = {"key": CALL.key, "call": json.dumps(asdict(CALL))}
    assert vllm_row(row) == {
        "messages": [{"role": "user", "content": "Write."}],
        "sampling_params": {
            "temperature": 0.5,
            "max_tokens": 50,
            "structured_outputs": {"json": '{"type":"object"}'},
        },
    }
    generated = {**row, "generated_text": "{}", "num_input_tokens": 7, "num_generated_tokens": 50}
    result = json.loads(vllm_result(generated)["result"])["reply"]
    assert result == {"text": "{}", "finish": "length", "input_tokens": 7, "output_tokens": 50}
    result = json.loads(vllm_result({**generated, "num_generated_tokens": 3})["result"])["reply"]
    assert result["finish"] == "stop"
