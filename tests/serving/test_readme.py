"""What the README says about the server holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

from serving_fakes import Running

from serving import headers
from serving.config import load_config

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


async def test_the_decision_example_is_accepted(server: Running) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    body = json.loads(example)
    answer = await server.http.post("/routing/v1/chat/completions", json=body)
    assert answer.status_code == 200
    named = {"models", "route", "routes", "confidence", "distribution", "trace_id"}
    assert named <= answer.json().keys()


def test_every_header_is_in_the_table() -> None:
    defined = {v for v in vars(headers).values() if isinstance(v, str) and v.startswith("x-")}
    assert set(re.findall(r"^\| `(x-[a-z-]+)` \|", README, re.MULTILINE)) == defined


def test_every_key_variable_is_named() -> None:
    config = load_config(ROOT / "configs" / "serve.yaml")
    variables = {
        variable
        for name, provider in config.providers.items()
        for variable in (provider.api_key_env, provider.base_url_env)
        if variable and name != "local"
    }
    assert variables
    assert all(f"`{variable}`" in README for variable in variables)


def test_every_preset_router_is_named() -> None:
    config = load_config(ROOT / "configs" / "serve.yaml")
    assert all(f"`{name}`" in README for name in config.preset_routers)
