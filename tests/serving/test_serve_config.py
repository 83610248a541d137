"""Configuration: refused with file and field, keys from the environment only, presets that hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from serving_fakes import FakeEngine, task

from routing.tasks import SelectionPolicy, resolve_pools
from serving.app import create_app
from serving.catalogue import Catalogue
from serving.config import ServerConfig, load_config
from serving.errors import ConfigError
from serving.latency import Latencies
from serving.needs import Need
from serving.presets import load_presets
from serving.ranking import Ranking

CONFIGS = Path(__file__).parents[2] / "configs"
ROUTER = {"name": "r", "policies": [task("a", "p/m")], "fallback_models": ["p/f"]}
BASE: dict[str, Any] = {
    "providers": {"p": {"base_url": "https://x.invalid/v1"}},
    "routers": [ROUTER],
}


def load(tmp_path: Path, content: dict[str, Any] | str) -> ServerConfig:
    path = tmp_path / "serve.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_config(path)


BAD_FILES: list[tuple[dict[str, Any], str]] = [
    ({"lisen": {}}, "lisen"),
    ({"listen": {"port": 70000}}, "listen.port"),
    ({"limits": {"body_bytes": 0}}, "limits.body_bytes"),
    ({"limits": {"bodybytes": 5}}, "limits.bodybytes"),
    ({"providers": {"p": {}}}, "providers.p"),
    ({"providers": {"p": {"base_url": "ftp://x/v1"}}}, "providers.p.base_url"),
    ({"providers": {"p": {"base_url": "https://u:pw@x/v1"}}}, "providers.p.base_url"),
    ({"providers": {"p": {"base_url": "https://x/v1", "api_key": "sk-1"}}}, "providers.p.api_key"),
    ({"models": {"m": {"provider": "q", "model": "x"}}}, "models.m.provider"),
    ({"routers": [{**ROUTER, "name": "Not Allowed"}]}, "routers[0].name"),
    ({"routers": [{**ROUTER, "fallback_models": []}]}, "routers[0].fallback_models"),
    (
        {"routers": [{**ROUTER, "policies": [task("two\nlines", "p/m")]}]},
        "routers[0].policies[0].custom_task.name",
    ),
    (
        {"routers": [{**ROUTER, "policies": [task("none", "p/m")]}]},
        "routers[0].policies[0].custom_task.name",
    ),
    (
        {"routers": [{**ROUTER, "policies": [task("a", "p/1", "p/2", "p/3", "p/4")]}]},
        "routers[0].policies[0].models",
    ),
    (
        {"engine": {"checkpoint": "x", "kind": "magic"}},
        "engine: Input tag 'magic' found",
    ),
    ({"engine": {"checkpoint": "x", "kind": "vllm", "threads": 2}}, "engine.vllm.threads"),
    ({"preset_routers": ["general"]}, "preset_routers"),
    *(
        ({"models": {"m": {"provider": "p", "model": "x", **update}}}, f"models.m.{field}")
        for update, field in (
            ({"price": {"input": -1, "output": 1}}, "price.input"),
            ({"price": {"input": 1, "output": float("nan")}}, "price.output"),
            (
                {"price": {"input": 1, "output": 1, "cached_input": float("inf")}},
                "price.cached_input",
            ),
            ({"price": {"input": 1, "output": 1, "cache_write": -0.1}}, "price.cache_write"),
            ({"context_tokens": 0}, "context_tokens"),
            ({"vision": "perhaps"}, "vision"),
            ({"tags": {"region": "a b"}}, "tags.region"),
        )
    ),
    ({"providers": {"p": {"base_url": "https://x/v1", "tags": {"": "x"}}}}, "providers.p.tags"),
    ({"prices": {"refresh_hours": 0}}, "prices.refresh_hours"),
    ({"latency": {"half_life_s": 0}}, "latency.half_life_s"),
    ({"latency": {"explore_every": -1}}, "latency.explore_every"),
    ({"latency": {"prometheus": {"url": "http://x"}}}, "latency.prometheus.query"),
    ({"routers": [{**ROUTER, "tags": {"a": 1}}]}, "routers[0].tags.a"),
    (
        {"routers": [{**ROUTER, "selection_policy": {"weights": {"cost": -1}}}]},
        "routers[0].selection_policy.weights.cost",
    ),
]


@pytest.mark.parametrize(
    ("update", "field"), BAD_FILES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_bad_file_is_refused_with_file_and_field(
    tmp_path: Path, update: dict[str, Any], field: str
):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, BASE | update)
    assert "serve.yaml: " in str(caught.value)
    assert field in str(caught.value)
    assert "sk-1" not in str(caught.value)
    assert "pw" not in str(caught.value)


def test_yaml_faults_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="given twice"):
        load(tmp_path, "listen: {port: 1}\nlisten: {port: 2}\n")
    with pytest.raises(ConfigError, match="not YAML"):
        load(tmp_path, "listen: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.yaml")


BAD_ROUTERS: list[tuple[dict[str, Any], str]] = [
    ({"routers": [ROUTER, ROUTER]}, r"routers\[1\]\.name"),
    (
        {"routers": [{**ROUTER, "policies": [task("a", "q/m")]}]},
        r"routers\[0\]\.policies\[0\]\.models\[0\]",
    ),
    (
        {"routers": [{**ROUTER, "fallback_models": ["p/f", "m"]}]},
        r"routers\[0\]\.fallback_models\[1\]",
    ),
    ({"routers": [{**ROUTER, "policies": [{"task_slug": "x", "models": ["p/m"]}]}]}, "'x'"),
    (
        {"routers": [{**ROUTER, "policies": [task(f"t{i}", "p/m") for i in range(9)]}]},
        r"routers\[0\]\.policies: more than 8 routes",
    ),
    ({"stand_ins": {"default": "q/m"}}, r"stand_ins\.default"),
    ({"stand_ins": {"default": "p/m", "tasks": {"zz": "p/m"}}}, r"stand_ins\.tasks\.zz"),
]


@pytest.mark.parametrize(
    ("update", "message"), BAD_ROUTERS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_router_that_cannot_be_served_is_refused_at_start(update: dict[str, Any], message: str):
    config = ServerConfig.model_validate(BASE | update)
    with pytest.raises(ConfigError, match=message):
        create_app(config, engine=FakeEngine(), environ={})


def test_an_unknown_preset_names_those_there_are(tmp_path: Path):
    raw = {**BASE, "presets": str(CONFIGS / "presets"), "preset_routers": ["genral"]}
    with pytest.raises(ConfigError, match="general"):
        create_app(load(tmp_path, raw), engine=FakeEngine(), environ={})


def test_a_server_needs_an_engine():
    with pytest.raises(ConfigError, match="engine"):
        create_app(ServerConfig.model_validate(BASE), environ={})


def test_paths_are_relative_to_the_file(tmp_path: Path):
    config = load(tmp_path, {"engine": {"checkpoint": "nano"}, "local_upstream": {"base": "b"}})
    assert config.engine is not None
    assert config.engine.checkpoint == tmp_path / "nano"
    assert config.local_upstream.base == tmp_path / "b"


PROVIDERS = {
    "providers": {
        "keyed": {"base_url": "https://k.invalid/v1/", "api_key_env": "K"},
        "any": {"base_url_env": "U", "api_key_env": "UK", "api_key_required": False},
    }
}


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, []),
        ({"K": "  "}, []),
        ({"K": "sk"}, ["keyed"]),
        ({"U": "http://localhost:1/v1"}, ["any"]),
        ({"K": "sk", "U": "http://localhost:1/v1", "UK": "sk-any"}, ["keyed", "any"]),
    ],
)
def test_the_environment_switches_providers_on(environ: dict[str, str], on: list[str]):
    catalogue = Catalogue(ServerConfig.model_validate(PROVIDERS), environ)
    assert catalogue.providers == on
    target = catalogue.target("any/org/model")
    assert (target is not None) == ("any" in on)
    if target is not None:
        assert target.model == "org/model"
        assert target.provider.key == environ.get("UK")
        assert environ.get("UK", "no key") not in repr(target)


@pytest.mark.parametrize("environ", [{"K": "sk\nx"}, {"K": "clé"}, {"U": "sk-in-wrong-place"}])
def test_a_broken_variable_is_named_and_not_shown(environ: dict[str, str]):
    [(name, value)] = environ.items()
    with pytest.raises(ConfigError, match=f"variable {name}") as caught:
        Catalogue(ServerConfig.model_validate(PROVIDERS), environ)
    assert value not in str(caught.value)


SHIPPED = load_config(CONFIGS / "serve.yaml")
PRESETS = load_presets(CONFIGS / "presets")


def test_the_presets_are_complete():
    titles = {preset.title for preset in PRESETS.values()}
    assert titles == {
        "Software Engineering",
        "General",
        "Writing",
        "Knowledge Base & Document Intelligence",
    }
    for preset in PRESETS.values():
        assert 5 <= len(preset.tasks) <= 7
        for entry in preset.tasks:
            assert 10 <= len(entry.description.split()) <= 20, entry.name


def test_a_presets_policy_is_that_of_its_tasks(tmp_path: Path):
    raw = yaml.safe_load((CONFIGS / "presets" / "writing.yaml").read_text())
    raw["selection_policy"] = {"prefer": "cheapest"}
    raw["tasks"][0]["selection_policy"] = {"prefer": "fastest"}
    (tmp_path / "writing.yaml").write_text(yaml.safe_dump(raw))
    preset = load_presets(tmp_path)["writing"]
    pools = resolve_pools(preset.router(), preset.tasks)
    found = [pool.selection_policy.prefer for pool in pools]
    assert found == ["fastest", *["cheapest"] * (len(pools) - 1)]


def test_every_preset_model_has_a_public_price():
    catalogue = Catalogue(SHIPPED, {})
    for preset in PRESETS.values():
        for models in [*(t.models for t in preset.tasks), preset.fallback_models]:
            for model in models:
                price = catalogue.price(model)
                assert price is not None, model
                assert price.output > price.input > 0


def test_a_price_nobody_knows_is_unknown_and_ranks_last():
    catalogue = Catalogue(SHIPPED, {})
    assert catalogue.price("compatible/whatever") is None
    ranked = Ranking(catalogue, Latencies()).order(
        ["compatible/whatever", "anthropic/claude-opus-5-5", "openai/gpt-6-luna"],
        SelectionPolicy(prefer="cheapest"),
        Need(prompt_tokens=100),
    )
    order = [each.name for each in ranked]
    assert order == ["openai/gpt-6-luna", "anthropic/claude-opus-5-5", "compatible/whatever"]


LOCAL = {"POINTSMAN_LOCAL_URL": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize("key", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"])
def test_with_any_one_key_every_task_is_answered_by_that_provider(key: str):
    app = create_app(SHIPPED, engine=FakeEngine(), environ=LOCAL | {key: "sk"})
    gateway = app.state.gateway
    prefix = {"OPENAI": "openai/", "ANTHROPIC": "anthropic/", "GEMINI": "google/"}[
        key.split("_")[0]
    ]
    for model in gateway.models():
        assert model.startswith((prefix, "local/"))
    for router in gateway.routers.values():
        for pool in router.pools:
            assert any(m.startswith(prefix) for m in pool.models), pool.route.name
        assert any(m.startswith(prefix) for m in router.fallbacks)


def test_without_keys_each_shipped_router_spreads_its_tasks_over_local_models():
    app = create_app(SHIPPED, engine=FakeEngine(), environ=LOCAL)
    gateway = app.state.gateway
    assert set(gateway.routers) == set(PRESETS)
    assert gateway.models() == list(SHIPPED.models)
    stand_ins = SHIPPED.stand_ins
    assert stand_ins is not None
    for router in gateway.routers.values():
        names = {stand_ins.tasks.get(r.name, stand_ins.default) for r in router.routes}
        assert len(names) > 1


def test_a_server_with_an_injected_engine_loads_no_torch():
    code = "import serving.run, sys; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
