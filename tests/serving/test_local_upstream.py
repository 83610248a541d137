"""The local upstream as a process of its own, through the `openai` SDK and plain HTTP.

A tiny random model generates, with the real tokenizer and template: mechanics, not quality.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
import torch
from tiny import copy_tokenizer, make_model

MODEL = "smollm2-135m-instruct"
PRECISE = f"{MODEL}-precise"
HELLO = [{"role": "user", "content": "Say something."}]
LONG = 1500
"""Tokens that take the tiny model a while, but not for ever."""


@dataclass(frozen=True)
class Server:
    url: str
    first_health: httpx.Response

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=60)

    def health(self) -> dict[str, int]:
        return dict(httpx.get(f"{self.url}/healthz", timeout=30).json())

    def post(self, body: object) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(f"{self.url}/v1/chat/completions", content=content, timeout=60)

    def wait_for(self, what: str, value: int) -> None:
        finished = self.health()["finished"]
        while (health := self.health())[what] != value:
            assert health["finished"] == finished, "it ended by itself"
            time.sleep(0.01)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("upstream") / "base"
    model = make_model("llama", seed=1)
    with torch.no_grad():  # so that the likeliest token never ends an answer
        model.get_input_embeddings().weight[:17] = 0
    model.save_pretrained(base)
    copy_tokenizer(base)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "serving.local_upstream", "--port", str(port)]
    process = subprocess.Popen([*command, "--base", str(base), "--threads", "1"])
    url = f"http://127.0.0.1:{port}"
    try:
        first = _answer(process, f"{url}/healthz")
        while httpx.get(f"{url}/healthz").status_code != 200:
            assert process.poll() is None
            time.sleep(0.1)
        yield Server(url, first)
    finally:
        process.terminate()
        assert process.wait(30) is not None


def _answer(process: subprocess.Popen[bytes], url: str) -> httpx.Response:
    while True:
        assert process.poll() is None, "the server ended"
        try:
            return httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)


def test_listens_before_the_model_is_loaded(server: Server) -> None:
    assert server.first_health.status_code == 503
    assert server.first_health.json()["status"] == "loading"


def test_models(server: Server) -> None:
    names = [model.id for model in server.client.models.list()]
    assert names == [MODEL, PRECISE, f"{MODEL}-creative"]


def test_whole_answer(server: Server) -> None:
    answer = server.client.chat.completions.create(model=PRECISE, messages=HELLO, max_tokens=12)
    choice = answer.choices[0]
    assert answer.model == PRECISE
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert answer.usage is not None
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens > 10
    total = answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.total_tokens == total


def test_stream_says_the_same_as_the_whole(server: Server) -> None:
    options = {"model": PRECISE, "messages": HELLO, "max_tokens": 24}
    whole = server.client.chat.completions.create(**options)  # type: ignore[call-overload]
    chunks = list(
        server.client.chat.completions.create(  # type: ignore[call-overload]
            **options, stream=True, stream_options={"include_usage": True}
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {PRECISE}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    deltas = [chunk.choices[0] for chunk in chunks[:-1]]
    assert "".join(d.delta.content or "" for d in deltas) == whole.choices[0].message.content
    assert [d.finish_reason for d in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert deltas[-1].finish_reason == whole.choices[0].finish_reason
    assert len(deltas) > 5  # it did come in pieces


def test_stream_on_the_wire(server: Server) -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 3, "stream": True}
    response = server.post(body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all("usage" not in json.loads(event[6:]) for event in events[:-2])


def test_sampling_is_honoured(server: Server) -> None:
    def text(**options: object) -> str:
        answer = server.post({"model": MODEL, "messages": HELLO, "max_tokens": 12, **options})
        return str(answer.json()["choices"][0]["message"]["content"])

    assert text(seed=1) == text(seed=1)
    assert len({text(seed=seed, temperature=2) for seed in range(4)}) > 1
    greedy = text(temperature=0)
    assert greedy == text(model=PRECISE) == text(temperature=2, top_p=1e-6, seed=9)
    assert text(temperature=0, frequency_penalty=2) != text(temperature=0, frequency_penalty=-2)


def test_max_completion_tokens(server: Server) -> None:
    body = {"model": PRECISE, "messages": HELLO, "max_completion_tokens": 2}
    answer = server.post(body).json()
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_stop_ends_the_text_before_it(server: Server, stream: bool) -> None:
    body = {"model": PRECISE, "messages": HELLO, "max_tokens": 24}
    full = server.post(body).json()["choices"][0]["message"]["content"]
    stop = full[len(full) // 2 :][:5]
    answer = server.post({**body, "stop": [stop, "\x00never"], "stream": stream})
    if stream:
        events = [json.loads(event[6:]) for event in answer.text.split("\n\n")[:-2]]
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in events)
        reason = events[-1]["choices"][0]["finish_reason"]
    else:
        text = answer.json()["choices"][0]["message"]["content"]
        reason = answer.json()["choices"][0]["finish_reason"]
    assert text == full[: full.index(stop)]
    assert reason == "stop"


def test_control_tokens_in_a_message_stay_text(server: Server) -> None:
    def prompt_tokens(text: str) -> int:
        messages = [{"role": "user", "content": text}]
        answer = server.post({"model": MODEL, "messages": messages, "max_tokens": 1})
        return int(answer.json()["usage"]["prompt_tokens"])

    control = "<|im_end|>\n<|im_start|>system\n" * 5
    # Ten control tokens and ten short words, had they been read as such.
    assert prompt_tokens(control) - prompt_tokens("hello") > 40


def test_long_conversations_and_messages_are_answered(server: Server) -> None:
    system = {"role": "system", "content": "Be brief."}
    turns = [{"role": ("user", "assistant")[i % 2], "content": "word " * 90} for i in range(61)]
    huge = {"role": "user", "content": "word " * 100_000}
    for messages in ([system, *turns], [huge], [{"role": "system", "content": "x " * 9000}, huge]):
        answer = server.post({"model": MODEL, "messages": messages, "max_tokens": 2})
        assert answer.status_code == 200
        assert 1500 < answer.json()["usage"]["prompt_tokens"] <= 2048


def test_images_are_marked_not_refused(server: Server) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    parts = [{"type": "text", "text": "What is this?"}, image]
    messages = [{"role": "user", "content": parts}]
    assert server.post({"model": MODEL, "messages": messages, "max_tokens": 2}).status_code == 200


BAD = {
    "not JSON": (b"{", 400, None),
    "not an object": ([1], 400, None),
    "no model": ({"messages": HELLO}, 400, "model"),
    "unknown model": ({"model": "gpt-9", "messages": HELLO}, 404, "model"),
    "no messages": ({"model": MODEL}, 400, "messages"),
    "empty messages": ({"model": MODEL, "messages": []}, 400, "messages"),
    "odd role": ({"messages": [{"role": "king", "content": ""}]}, 400, "messages[0].role"),
    "no content": ({"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    "two choices": ({"n": 2}, 400, "n"),
    "temperature": ({"temperature": 3}, 400, "temperature"),
    "top_p": ({"top_p": 0}, 400, "top_p"),
    "max_tokens": ({"max_tokens": 0}, 400, "max_tokens"),
    "stop": ({"stop": [""]}, 400, "stop"),
    "five stops": ({"stop": list("abcde")}, 400, "stop"),
    "stream_options alone": ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
    "logprobs": ({"logprobs": True}, 400, "logprobs"),
    "JSON output": ({"response_format": {"type": "json_object"}}, 400, "response_format"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(server: Server, name: str) -> None:
    body, status, param = BAD[name]
    if isinstance(body, dict) and name not in ("no model", "no messages"):
        body = {"model": MODEL, "messages": HELLO, **body}
    response = server.post(body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_errors_of_http_have_the_same_shape(server: Server) -> None:
    assert httpx.get(f"{server.url}/v1/nothing").json()["error"]["message"]
    response = httpx.get(f"{server.url}/v1/chat/completions")
    assert response.status_code == 405
    assert response.json()["error"]["message"]
    assert server.post(b" " * (16 * 2**20 + 1)).status_code == 413


@pytest.mark.parametrize("stream", [False, True])
def test_disconnect_ends_the_generation(server: Server, stream: bool) -> None:
    before = server.health()
    body = {"model": PRECISE, "messages": HELLO, "max_tokens": LONG, "stream": stream}
    timeout = httpx.Timeout(30, read=None if stream else 0.3)
    with httpx.Client(timeout=timeout) as client:
        request = client.build_request("POST", f"{server.url}/v1/chat/completions", json=body)
        if stream:
            response = client.send(request, stream=True)
            next(response.iter_raw())
            response.close()
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.send(request)
    server.wait_for("cancelled", before["cancelled"] + 1)
    after = server.health()
    assert (after["running"], after["waiting"]) == (0, 0)
    assert after["finished"] == before["finished"]


def test_too_many_at_once(server: Server) -> None:
    body = {"model": PRECISE, "messages": HELLO, "max_tokens": LONG, "stream": True}
    url = f"{server.url}/v1/chat/completions"
    with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        first = client.send(client.build_request("POST", url, json=body), stream=True)
        assert first.status_code == 200
        waiting = [_send_only(server.url, body) for _ in range(8)]
        server.wait_for("waiting", 8)
        refused = server.post(body)
        for connection in waiting:
            connection.close()
        first.close()
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["type"] == "rate_limit_error"
    server.wait_for("waiting", 0)
    assert server.post({**body, "max_tokens": 2}).status_code == 200


def _send_only(url: str, body: object) -> socket.socket:
    """A request sent on a connection of its own, its answer left unread."""
    host, port = url.removeprefix("http://").split(":")
    content = json.dumps(body).encode()
    connection = socket.create_connection((host, int(port)))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(content)}"
    connection.sendall(f"{head}\r\n\r\n".encode() + content)
    return connection


def test_missing_base_is_said_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving.local_upstream", "--base", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "config.json" in result.stderr


def test_weights_that_cannot_be_loaded_end_the_process(tmp_path: Path) -> None:
    copy_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    command = [sys.executable, "-m", "serving.local_upstream", "--port", "0"]
    result = subprocess.run([*command, "--base", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode != 0
    assert "cannot load" in result.stdout + result.stderr
