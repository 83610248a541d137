"""Sessions in memory, what is stored of one, and by which key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from clock import Clock
from hypothesis import given
from hypothesis import strategies as st

from routing.conversation import normalise
from serving.config_sessions import SessionsConfig
from serving.errors import ConfigError
from serving.sessions.key import explicit_key, implicit_key
from serving.sessions.session import Session, Warmth, decoded
from serving.sessions.store import MemoryStore

WARMTH = st.builds(Warmth, st.integers(0, 10**7), st.floats(0, 2e9))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
CACHES = st.dictionaries(TEXT, WARMTH, max_size=4)
COUNTS = st.integers(0, 2**53)
MONEY = st.floats(-1e6, 1e6)
SESSIONS = st.builds(
    Session,
    *(TEXT, st.none() | TEXT, TEXT),
    *(st.booleans(), st.floats(0, 2e9), CACHES, CACHES, COUNTS, COUNTS),
    *(MONEY, MONEY, MONEY),
)


def session(clock: Clock, model: str = "m") -> Session:
    return Session(model, "task", "turn", True, clock())


async def test_the_least_recently_used_session_goes_first(clock: Clock):
    store = MemoryStore(2, 600, clock)
    for key in ("a", "b", "a", "c"):
        store.put(key, session(clock))
    assert [await store.get(key) is not None for key in "abc"] == [True, False, True]
    assert store.size == 2


async def test_a_session_is_forgotten_when_it_was_not_used_for_its_time(clock: Clock):
    store = MemoryStore(10, 600, clock)
    store.put("a", session(clock))
    clock.now += 400
    store.put("b", session(clock))
    clock.now += 199
    assert await store.get("a") is not None
    clock.now += 1
    assert await store.get("a") is None
    assert await store.get("b") is not None
    assert store.size == 1


@given(SESSIONS)
def test_what_is_stored_is_what_is_read(kept: Session):
    assert decoded(kept.encoded()) == kept


@given(st.binary(max_size=200) | st.sampled_from([b"[]", b"[1]", b"{}", b"null", b"[2,1,1]"]))
def test_what_somebody_else_has_stored_is_no_session(stored: bytes):
    assert decoded(stored) is None


def test_a_session_of_another_version_is_none(clock: Clock):
    stored = session(clock).encoded()
    assert stored.startswith(b"[1,")
    assert decoded(b"[2," + stored[3:]) is None
    assert decoded(stored[:-1] + b",0]") is None


def key(tenant: str = "t", router: str | None = "r", tools: Any = None, **said: str) -> str:
    messages = [
        {"role": "system", "content": said.get("system", "s")},
        {"role": "user", "content": said.get("user", "u")},
        {"role": "assistant", "content": said.get("answer", "x")},
    ]
    body = {"tools": tools} if tools else {}
    found = implicit_key(tenant, router, normalise(messages), messages, body)
    assert found is not None
    return found.id


def test_tenants_and_routers_never_share_a_session():
    ids = {
        explicit_key("t", "r", "name").id,
        explicit_key("u", "r", "name").id,
        explicit_key("t", "q", "name").id,
        explicit_key("t", None, "name").id,
        explicit_key("", "r", "name").id,
        explicit_key("t", "", "rname").id,
        explicit_key("tr", "", "name").id,
        *(key(), key("u"), key(router="q"), key(router=None)),
    }
    assert len(ids) == 11


def test_a_session_is_recognised_by_how_it_begins_and_by_nothing_else():
    assert key() == key(answer="another")
    others = {
        key(system="S"),
        key(user="U"),
        key(tools=[{"name": "t"}]),
        key(system="su", user="-"),
    }
    assert key() not in others
    assert len(others) == 4


def test_a_line_that_changes_with_each_request_does_not_end_a_session():
    billing = "x-anthropic-billing-header: cc_version=2.1; cch={};\nYou are Claude Code."
    assert key(system=billing.format("a1")) == key(system=billing.format("b2"))


def test_pictures_that_begin_a_conversation_tell_it_from_others():
    def of(url: str, **mark: Any) -> str:
        part = {"type": "image_url", "image_url": {"url": url}, **mark}
        messages = [{"role": "user", "content": [part]}]
        found = implicit_key("t", "r", normalise(messages), messages, {})
        assert found is not None
        return found.id

    assert of("data:a") != of("data:b")
    assert of("data:a") == of("data:a", cache_control={"type": "ephemeral"})


def test_the_variable_goes_before_the_file_and_is_not_repeated_in_errors():
    config = SessionsConfig(redis_url="redis://file:6379")
    assert config.redis({}) == "redis://file:6379"
    assert config.redis({"POINTSMAN_REDIS_URL": "rediss://:pw@env/1"}) == "rediss://:pw@env/1"
    with pytest.raises(ConfigError, match="POINTSMAN_REDIS_URL") as caught:
        config.redis({"POINTSMAN_REDIS_URL": "http://secret@host"})
    assert "secret" not in str(caught.value)


def test_a_session_says_when_its_caches_are_cold(clock: Clock):
    known = dataclasses.replace(session(clock), warm={"m": Warmth(7, 100.0)})
    assert (known.warm_tokens("m", 100.0), known.warm_tokens("m", 100.1)) == (7, 0)
