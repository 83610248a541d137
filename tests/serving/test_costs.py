"""Public prices and what requests cost by them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import genai_prices
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.catalogue import Catalogue
from serving.config import ServerConfig
from serving.config_ranking import PricesConfig
from serving.costs import PRIOR_OUTPUT_TOKENS, Costs, OutputLengths, Usage
from serving.needs import Need
from serving.prices import Place, PublicPrices

CONFIG = ServerConfig.model_validate(
    {
        "providers": {
            "openai": {"base_url": "https://api.openai.com/v1"},
            "anthropic": {"base_url": "https://api.anthropic.com/v1", "tags": {"data": "kept"}},
            "mine": {"base_url_env": "MINE", "tags": {"region": "eu", "data": "no-train"}},
        },
        "models": {
            "own": {
                "provider": "mine",
                "model": "m",
                "price": {"input": 4, "output": 10, "cached_input": 1, "cache_write": 5},
                "vision": False,
                "tags": {"region": "us"},
            },
            "plain": {"provider": "mine", "model": "m", "price": {"input": 4, "output": 10}},
            "free": {"provider": "mine", "model": "m", "price": {"input": 0, "output": 0}},
            "short": {"provider": "openai", "model": "gpt-5", "context_tokens": 9},
        },
    }
)
CATALOGUE = Catalogue(CONFIG, {"MINE": "http://localhost:1/v1"})
COSTS = Costs(CATALOGUE)
NOW = datetime(2026, 7, 1, tzinfo=UTC)


def test_an_owners_price_is_reckoned_by_kind_of_token() -> None:
    usage = Usage(input_tokens=1000, output_tokens=100, cached_tokens=600, cache_write_tokens=300)
    assert COSTS.cost_of("own", usage) == pytest.approx(
        (100 * 4 + 600 * 1 + 300 * 5 + 100 * 10) / 1e6
    )
    assert COSTS.cost_of("plain", usage) == pytest.approx((1000 * 4 + 100 * 10) / 1e6)
    assert COSTS.cost_of("free", usage) == 0
    assert COSTS.cost_of("mine/whatever", usage) is None


def test_more_cached_tokens_than_there_are_count_as_all() -> None:
    usage = Usage(input_tokens=10, output_tokens=0, cached_tokens=99, cache_write_tokens=99)
    assert COSTS.cost_of("own", usage) == pytest.approx(10 * 1 / 1e6)
    need = Need(prompt_tokens=10)
    assert COSTS.expected_cost("own", need, 0, cached_tokens=99) == pytest.approx(10 * 1 / 1e6)


SIZES = (0, 1, 5_000, 199_999, 200_000, 200_001, 272_000, 272_001, 900_000)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-6-luna"),  # tiers
        ("anthropic", "claude-sonnet-4-5"),  # tiers, and two prices of cache writes
        ("anthropic", "claude-opus-5-5"),
        ("openai", "gpt-5"),  # no price of cache writes
        ("google", "gemini-2.5-pro"),
        ("perplexity", "sonar-pro"),  # a fee for each request
        ("deepseek", "deepseek-chat"),  # by the time of the day
    ],
)
def test_costs_of_public_prices_are_the_packages_own(provider: str, model: str) -> None:
    prices = PublicPrices(clock=NOW.timestamp)
    config = {"providers": {provider: {"base_url_env": "X"}}}
    costs = Costs(Catalogue(ServerConfig.model_validate(config), {}, prices))
    for size, output in itertools.product(SIZES, (0, 1, 4_000)):
        usage = Usage(size, output, size // 2, size // 4, size // 8)
        theirs = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=size,
                output_tokens=output,
                cache_read_tokens=size // 2,
                cache_write_tokens=size // 4,
                cache_write_1h_tokens=size // 8,
            ),
            model_ref=model,
            provider_id=provider,
            genai_request_timestamp=NOW,
        )
        ours = costs.cost_of(f"{provider}/{model}", usage)
        assert ours == pytest.approx(float(theirs.total_price), abs=1e-12), usage


def test_a_price_that_changes_at_a_date_is_noticed() -> None:
    moment = [datetime(2026, 11, 30, 23, 59, tzinfo=UTC).timestamp()]
    prices = PublicPrices(clock=lambda: moment[0])
    place = Place("gemini-4-argon", "google", None)
    before = prices.rates(place, 100)
    moment[0] += 120
    after = prices.rates(place, 100)
    assert before is not None
    assert after is not None
    assert after.input == 2 * before.input


@pytest.mark.parametrize(
    "place",
    [
        Place("nobody-knows", "openai", None),
        Place("gpt-5", "nobody", None),
        Place("gpt-5", "", "http://localhost:1/v1"),
        Place("whisper-large-v3", "groq", None),  # by the hour of sound
        Place("text-embedding-3-small", "openai", None),  # has no output
    ],
)
def test_what_is_not_priced_by_text_is_unknown_and_not_free(place: Place) -> None:
    assert PublicPrices().rates(place, 100) is None


def test_the_base_url_tells_whose_prices_hold() -> None:
    config = {"providers": {"compatible": {"base_url_env": "U"}}}
    served = ServerConfig.model_validate(config)
    catalogue = Catalogue(served, {"U": "https://api.openai.com/v1"})
    assert catalogue.price("compatible/gpt-5") == CATALOGUE.price("openai/gpt-5")
    assert catalogue.capabilities("compatible/gpt-5").context_tokens == 400_000
    assert Catalogue(served, {}).price("compatible/gpt-5") is None


def test_capabilities_are_the_owners_word_and_then_what_is_public() -> None:
    own = CATALOGUE.capabilities("own")
    assert (own.context_tokens, own.vision, own.tools) == (None, False, None)
    assert own.tags == {"region": "us", "data": "no-train"}
    assert CATALOGUE.capabilities("mine/other").tags == {"region": "eu", "data": "no-train"}
    assert CATALOGUE.capabilities("anthropic/claude-opus-5-5").tags == {"data": "kept"}
    assert CATALOGUE.capabilities("anthropic/claude-opus-5-5").context_tokens == 1_000_000
    assert CATALOGUE.capabilities("openai/gpt-5").context_tokens == 400_000
    assert CATALOGUE.capabilities("short").context_tokens == 9
    assert CATALOGUE.capabilities("elsewhere/unheard-of").context_tokens is None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["own", "openai/gpt-6-luna", "anthropic/claude-sonnet-4-5", "google/x"]),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.floats(0, 10**5),
)
def test_a_warm_cache_is_never_dearer_and_more_output_never_cheaper(
    model: str, prompt: int, cached: int, output: float
) -> None:
    need = Need(prompt_tokens=prompt)
    cold = COSTS.expected_cost(model, need, output)
    warm = COSTS.expected_cost(model, need, output, cached)
    longer = COSTS.expected_cost(model, need, output + 1000)
    if cold is None:
        assert warm is None
    else:
        assert warm is not None
        assert longer is not None
        assert 0 <= warm <= cold < longer


def test_expected_output_is_the_models_own_then_the_tasks_then_a_prior() -> None:
    outputs = OutputLengths()
    assert outputs.expected_output("a", "code", Need()) == PRIOR_OUTPUT_TOKENS
    assert outputs.expected_output("a", "code", Need(max_output_tokens=20)) == 20
    assert outputs.expected_output("a", "code", Need(max_output_tokens=9000)) == PRIOR_OUTPUT_TOKENS
    for _ in range(200):
        outputs.observe_output("a", "code", 1000)
        outputs.observe_output("b", "code", 3000)
    assert outputs.expected_output("a", "code", Need()) == pytest.approx(1000)
    assert outputs.expected_output("b", "code", Need()) == pytest.approx(3000)
    assert outputs.expected_output("c", "code", Need()) == pytest.approx(2000, rel=0.05)
    assert outputs.expected_output("b", "code", Need(max_output_tokens=50)) == 50
    assert outputs.expected_output("b", "chat", Need()) == PRIOR_OUTPUT_TOKENS
    assert outputs.expected_output("b", None, Need()) == PRIOR_OUTPUT_TOKENS
    for _ in range(200):
        outputs.observe_output("a", "code", 10)
    assert outputs.expected_output("a", "code", Need()) == pytest.approx(10, abs=30)
    outputs.observe_output("a", "code", -5)
    assert outputs.expected_output("a", "code", Need()) > 0


# Newer data over the network


class DataServer:
    """Serves data in the package's form; `prices` are those of its one model."""

    def __init__(self) -> None:
        self.prices: Any = {"input_mtok": 3, "output_mtok": 6}
        self.status = 200
        self.url = ""

    async def answer(self, _: web.Request) -> web.Response:
        model = {"id": "gpt-5", "match": {"equals": "gpt-5"}, "prices": self.prices}
        provider = {"id": "openai", "name": "o", "api_pattern": "https://o", "models": [model]}
        return web.json_response([provider], status=self.status)


@pytest.fixture
async def data() -> AsyncIterator[DataServer]:
    server = DataServer()
    app = web.Application()
    app.router.add_get("/data.json", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/data.json"
    yield server
    await runner.cleanup()


PLACE = Place("gpt-5", "openai", None)


async def test_newer_prices_replace_the_packages_until_a_fetch_fails(data: DataServer) -> None:
    prices = PublicPrices(PricesConfig(refresh_hours=1, url=data.url))
    refresher = prices.refresher
    assert refresher is not None
    assert refresher.age_seconds is None
    shipped = prices.rates(PLACE, 100)
    assert shipped is not None
    assert shipped.input != 3

    assert await refresher.refresh()
    fetched = prices.rates(PLACE, 100)
    assert fetched is not None
    assert (fetched.input, fetched.output) == (3, 6)
    assert refresher.age_seconds is not None

    bad: list[tuple[int, Any]] = [
        (500, data.prices),
        (200, {"input_mtok": -1, "output_mtok": 6}),
        (200, {"input_mtok": float("nan"), "output_mtok": 6}),
        (200, {"input_mtok": 1, "output_mtok": {"base": 1, "tiers": [{"start": 9, "price": -1}]}}),
        (200, {}),
    ]
    for data.status, data.prices in bad:
        assert not await refresher.refresh()
        assert prices.rates(PLACE, 100) == fetched
    # Other servers of this process are not touched.
    assert PublicPrices().rates(PLACE, 100) == shipped


def test_nothing_is_fetched_unless_asked_for() -> None:
    assert PublicPrices().refresher is None
