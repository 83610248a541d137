"""The teacher against a scripted endpoint: what it writes, rejects, repairs and refuses."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import time
from collections import Counter
from pathlib import Path

import pytest
import teacher_server
from aiohttp import web
from teacher_server import KEY, KEY_VARIABLE, TeacherServer, completion, run, write_recipe

from data_synthesis.sources.stored import read_stored
from data_synthesis.teacher.drive import Status
from data_synthesis.teacher.errors import EndpointError
from data_synthesis.teacher.estimate import estimate
from data_synthesis.teacher.run import run_teacher

DIALOGUE = "Write a conversation"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_writes_talk_that_can_be_read_back(server: TeacherServer, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        server.url,
        topics=["A small bakery"],
        policies_per_topic=4,
        edge_cases_per_topic=10,
        judge_model="judge",
        judge_prices={"input": 3.0, "output": 4.0},
    )
    seen: list[Status] = []
    facts = run_teacher(recipe, tmp_path / "out", seen.append)
    assert facts["stopped"] is None
    assert facts["complete"]

    corpus = read_stored(tmp_path / "out")
    assert (corpus.name, corpus.licence) == ("teacher", "CC0-1.0")
    written = [key for key in corpus.tasks if key.startswith("teacher/a_small_bakery/")]
    assert written == [f"teacher/a_small_bakery/bake_loaf_{x}" for x in ("aa", "bb", "cc", "dd")]
    first = corpus.tasks[written[0]]
    assert first.wording.names == ("bake_loaf_aa", "bake_loaf_aa_other")
    assert first.neighbours == {written[1]}
    taken = corpus.tasks["teacher/hotel_and_hospitality_service/room_reservation"]
    assert "stay_booking" in taken.wording.names
    assert "teacher/hotel_and_hospitality_service/property_facilities" in taken.neighbours

    whole = [d for d in corpus.dialogues if "/edge/" not in d.id]
    assert Counter(d.id.split("/")[1] for d in whole) == {
        "hotel_and_hospitality_service": 3,
        "a_small_bakery": 3,
    }
    for dialogue in whole:
        users = [turn for turn in dialogue.turns if turn.role == "user"]
        assert 2 <= len(users) <= 4
        assert [turn.task is None for turn in users] == [False] * (len(users) - 1) + [True]
        assert all(turn.decided for turn in users)
    # Two follow-ups in each topic's batch of 8 cases, none in its batch of 2.
    assert len(corpus.dialogues) - len(whole) == 2 * 2
    assert {request.tasks for request in corpus.requests} > {()}

    models = Counter(body["model"] for body in server.bodies)
    assert models == {"writer": 2 + 2 * (3 + 2), "judge": 2 * (3 + 2)}
    assert {b["temperature"] for b in server.bodies if b["model"] == "judge"} == {0.0}
    assert all(b["response_format"]["json_schema"]["strict"] for b in server.bodies)
    assert server.authorisations == {f"Bearer {KEY}"}
    assert 1 < server.most_under_way <= 4
    spent = (12 * (100 * 1 + 200 * 2) + 10 * (100 * 3 + 200 * 4)) / 1e6
    assert facts["spend"]["money"] == pytest.approx(spent)
    assert seen[-1].done == seen[-1].total == 2 * (3 + 2)
    assert seen[-1].money == pytest.approx(spent)


def test_says_beforehand_what_it_will_ask(server: TeacherServer, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, server.url, topics=["A small bakery"], edge_cases_per_topic=10)
    said = estimate(recipe)
    assert not server.bodies
    run(recipe, tmp_path / "out")
    assert said["calls"] == len(server.bodies)
    assert said["most_calls"] == 9 * said["calls"]
    assert said["money"] == pytest.approx(
        (said["input_tokens"] + 2 * said["output_tokens"]) / 1e6, abs=1e-3
    )
    characters = sum(
        len(body["messages"][0]["content"]) + len(json.dumps(body["response_format"]))
        for body in server.bodies
    )
    # The scripted assistant says less than a real one.
    assert 1 < said["input_tokens"] / (characters / 4) < 2


def test_a_rerun_asks_nothing_and_writes_the_same_bytes(
    server: TeacherServer, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, server.url, edge_cases_per_topic=6)
    run(recipe, tmp_path / "out")
    asked, before = len(server.bodies), files(tmp_path / "out")
    run(recipe, tmp_path / "out")
    assert len(server.bodies) == asked
    assert files(tmp_path / "out") == before


def misfit(always: bool) -> teacher_server.Fault:
    """Plants a turn that the judge rejects, in the first version of each dialogue or in all."""

    def fault(request: web.Request, prompt: str) -> str | None:
        if DIALOGUE not in prompt or (not always and "turned down" in prompt):
            return None
        good = json.loads(teacher_server.good_answer(prompt))
        good["turns"][0]["content"] = "MISFIT, I want something else."
        return json.dumps(good)

    return fault


def test_a_turn_that_misfits_is_written_anew(server: TeacherServer, tmp_path: Path) -> None:
    server.always = misfit(always=False)
    facts = run(write_recipe(tmp_path, server.url), tmp_path / "out")
    assert facts["counts"]["dialogues"] == 3
    assert facts["turned_down"] == {"rejected_dialogues": 3, "rejected_turns": 3}
    again = [prompt for prompt in server.prompts if "turned down" in prompt]
    assert len(again) == 3
    assert all("MISFIT, I want something else." in prompt for prompt in again)
    assert all("none would be better. Nobody would say so." in prompt for prompt in again)
    text = (tmp_path / "out" / "dialogues.jsonl.gz").read_bytes()
    assert b"MISFIT" not in gzip.decompress(text)


def test_what_never_passes_is_left_out_and_counted(server: TeacherServer, tmp_path: Path) -> None:
    server.always = misfit(always=True)
    facts = run(write_recipe(tmp_path, server.url), tmp_path / "out")
    assert facts["stopped"] is None
    assert facts["counts"]["dialogues"] == 0
    assert facts["turned_down"]["rejected_dialogues"] == 3 * 3
    assert facts["turned_down"]["lost_dialogues"] == 3
    assert read_stored(tmp_path / "out").dialogues == ()


def test_rejected_hard_cases_are_replaced(server: TeacherServer, tmp_path: Path) -> None:
    def fault(request: web.Request, prompt: str) -> str | None:
        if "Write 6 hard cases" not in prompt:
            return None
        answer = json.loads(teacher_server.good_answer(prompt))
        for case in answer["cases"][:2]:
            case["content"] += " MISFIT"
        return json.dumps(answer)

    server.always = fault
    recipe = write_recipe(tmp_path, server.url, dialogues_per_topic=0, edge_cases_per_topic=6)
    facts = run(recipe, tmp_path / "out")
    assert facts["turned_down"]["rejected_edge_cases"] == 2
    assert "lost_edge_cases" not in facts["turned_down"]
    assert facts["counts"]["requests"] + facts["counts"]["dialogues"] == 6
    assert any("Write 2 hard cases" in prompt for prompt in server.prompts)


def refused(request: web.Request, prompt: str) -> teacher_server.Body:
    return completion(None, refusal="I cannot help with that.")


def half(request: web.Request, prompt: str) -> teacher_server.Body:
    return completion(teacher_server.good_answer(prompt)[:40], finish="length")


def whole_but_cut(request: web.Request, prompt: str) -> teacher_server.Body:
    return completion(teacher_server.good_answer(prompt), finish="length")


def filtered(request: web.Request, prompt: str) -> teacher_server.Body:
    return completion("", finish="content_filter")


def strange_label(request: web.Request, prompt: str) -> str:
    return teacher_server.dialogue(["no_such_task", "nor_this"], 3)


def too_long(request: web.Request, prompt: str) -> str:
    good = teacher_server.good_answer(prompt)
    labels = re.findall(r'"task": "(\w+)"', good)
    return teacher_server.dialogue(labels, 9)


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (lambda request, prompt: "Sure! Here it comes.", "invalid", "no JSON object"),
        (lambda request, prompt: '{"turns": [{"role": "user"', "invalid", "no JSON object"),
        (lambda request, prompt: '{"turns": [{"role": "user"}]}', "invalid", "turns.0.content"),
        (lambda request, prompt: completion("  "), "empty", "it was empty"),
        (strange_label, "invalid", "neither a task's name nor none"),
        (too_long, "invalid", "2 to 4 user turns"),
        (half, "length", "became too long"),
        (whole_but_cut, "length", "became too long"),
        (refused, "refusal", "it declined"),
        (filtered, "filter", "content filter"),
    ],
)
def test_an_unusable_answer_is_asked_for_again(
    server: TeacherServer, tmp_path: Path, fault: teacher_server.Fault, kind: str, said: str
) -> None:
    server.faults = [fault]
    recipe = write_recipe(tmp_path, server.url, dialogues_per_topic=1)
    facts = run(recipe, tmp_path / "out")
    assert facts["counts"]["dialogues"] == 1
    assert facts["turned_down"] == {f"unreadable_{kind}": 1}
    assert facts["counts"]["calls"] == len(server.bodies) == 3
    assert said in server.prompts[1]
    assert server.prompts[1].startswith(server.prompts[0])


def test_a_judge_that_forgets_a_turn_is_asked_again(server: TeacherServer, tmp_path: Path) -> None:
    def forgets(request: web.Request, prompt: str) -> str:
        answer = json.loads(teacher_server.judge(prompt))
        return json.dumps({"verdicts": answer["verdicts"][1:]})

    server.faults = [lambda request, prompt: None, forgets]
    recipe = write_recipe(tmp_path, server.url, dialogues_per_topic=1)
    facts = run(recipe, tmp_path / "out")
    assert facts["counts"]["dialogues"] == 1
    assert "exactly one for each of the numbers" in server.prompts[2]


def test_answers_are_not_asked_for_without_end(server: TeacherServer, tmp_path: Path) -> None:
    server.always = lambda request, prompt: "no"
    recipe = write_recipe(
        tmp_path, server.url, dialogues_per_topic=1, topics=["A small bakery"], attempts=2
    )
    facts = run(recipe, tmp_path / "out")
    assert len(server.bodies) == 2 + 2
    assert facts["turned_down"] == {
        "gave_up_dialogue": 1,
        "gave_up_policies": 1,
        "lost_dialogues": 1,
        "unreadable_invalid": 4,
    }
    assert facts["complete"]  # nothing would come of asking again


async def hang(request: web.Request, prompt: str) -> str:
    await asyncio.sleep(5)
    return ""


def hung_up(request: web.Request, prompt: str) -> web.Response:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize(
    "fault",
    [
        lambda request, prompt: web.json_response({"error": "busy"}, status=429),
        lambda request, prompt: web.json_response({"error": "oops"}, status=500),
        lambda request, prompt: web.Response(text="<h1>Bad gateway</h1>", status=502),
        lambda request, prompt: web.Response(text="<h1>A proxy's page</h1>"),
        lambda request, prompt: {"choices": []},
        hung_up,
        hang,
    ],
)
def test_a_failed_request_is_sent_again(
    server: TeacherServer, tmp_path: Path, fault: teacher_server.Fault
) -> None:
    server.faults = [fault, fault]
    recipe = write_recipe(tmp_path, server.url, dialogues_per_topic=1, timeout_s=0.5)
    facts = run(recipe, tmp_path / "out")
    assert facts["counts"]["dialogues"] == 1
    assert facts["counts"]["calls"] == 2
    assert server.bodies[0] == server.bodies[1] == server.bodies[2]
    assert len(server.bodies) == 4
    assert facts["turned_down"] == {}


@pytest.mark.parametrize("value", ["1", "date"])
def test_retry_after_is_honoured(server: TeacherServer, tmp_path: Path, value: str) -> None:
    def busy(request: web.Request, prompt: str) -> web.Response:
        # A date has whole seconds, so that it can be up to one second less than this.
        later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
        header = {"Retry-After": later if value == "date" else value}
        return web.Response(status=429, headers=header)

    server.faults = [busy]
    started = time.monotonic()
    run(write_recipe(tmp_path, server.url, dialogues_per_topic=1), tmp_path / "out")
    assert time.monotonic() - started >= 1


def test_a_failing_endpoint_stops_the_run(server: TeacherServer, tmp_path: Path) -> None:
    server.always = lambda request, prompt: web.Response(status=503)
    recipe = write_recipe(tmp_path, server.url, request_attempts=2, concurrency=1)
    with pytest.raises(EndpointError, match="status 503, at attempt 2"):
        run(recipe, tmp_path / "out")
    assert len(server.bodies) == 3 * 2
    assert set(files(tmp_path / "out")) == {"ledger.jsonl"}


def test_a_call_that_keeps_failing_leaves_its_unit_for_the_next_run(
    server: TeacherServer, tmp_path: Path
) -> None:
    server.faults = [lambda request, prompt: web.Response(status=503)] * 2
    recipe = write_recipe(tmp_path, server.url, request_attempts=2, concurrency=1)
    facts = run(recipe, tmp_path / "out")
    assert facts["counts"]["dialogues"] == 2
    assert facts["counts"]["unfinished"] == 1
    assert "run again" in facts["stopped"]
    facts = run(recipe, tmp_path / "out")
    assert facts["counts"]["dialogues"] == 3
    assert facts["stopped"] is None
    assert len(server.bodies) == 2 + 3 * 2


def test_nobody_at_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    recipe = write_recipe(tmp_path, "http://127.0.0.1:9", dialogues_per_topic=1, request_attempts=2)
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9.*connection failed"):
        run(recipe, tmp_path / "out")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 307])
def test_a_refusal_names_status_and_endpoint_but_not_the_key(
    server: TeacherServer, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.always = lambda request, prompt: web.json_response(
        {"error": {"message": f"Incorrect API key: {KEY}"}},
        status=status,
        headers={"Location": "/v1/elsewhere"} if status == 307 else {},
    )
    with pytest.raises(EndpointError) as caught:
        run(write_recipe(tmp_path, server.url, concurrency=1), tmp_path / "out")
    message = str(caught.value)
    assert f"status {status}" in message
    assert f"{server.url}/v1/chat/completions" in message
    assert "Incorrect API key: [key]" in message
    assert KEY not in message + caplog.text
    assert len(server.bodies) == 1


def test_a_server_without_json_schema_is_asked_in_words(
    server: TeacherServer, tmp_path: Path
) -> None:
    def simple(request: web.Request, prompt: str) -> web.Response | str:
        if "response_format" in server.bodies[-1]:
            error = {"message": "response_format: json_schema is not supported"}
            return web.json_response({"error": error}, status=400)
        asked, _, _ = prompt.partition("Answer with one JSON object")
        return f"Here you are:\n```json\n{teacher_server.good_answer(asked)}\n```\n{{bye}}"

    server.always = simple
    recipe = write_recipe(tmp_path, server.url, concurrency=1, edge_cases_per_topic=3)
    facts = run(recipe, tmp_path / "out")
    assert facts["counts"]["dialogues"] == 3 + 1
    assert facts["turned_down"].get("unreadable_invalid") is None
    refused = [body for body in server.bodies if "response_format" in body]
    assert len(refused) == 1
    assert '"additionalProperties":false' in server.prompts[-1]


def test_the_key_is_nowhere(
    server: TeacherServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def echo(request: web.Request, prompt: str) -> str:
        good = json.loads(teacher_server.good_answer(prompt))
        good["turns"][0]["content"] += request.headers["Authorization"]
        return json.dumps(good)

    server.faults = [
        lambda request, prompt: web.Response(status=500, text=request.headers["Authorization"]),
        echo,
    ]
    facts = run(write_recipe(tmp_path, server.url, dialogues_per_topic=1), tmp_path / "out")
    assert "status 500" in caplog.text
    assert KEY not in caplog.text + json.dumps(facts)
    stored = files(tmp_path / "out")
    assert b"Bearer [key]" in stored["ledger.jsonl"]
    stored["dialogues"] = gzip.decompress(stored["dialogues.jsonl.gz"])
    assert all(KEY.encode() not in content for content in stored.values())
