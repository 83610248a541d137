"""Whatever state models are in: each is asked at most once, in an order that can be told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.accounts import Accounts, Exchange
from serving.breaker import Breakers
from serving.catalogue import Provider, Target
from serving.config import BreakerConfig
from serving.failover import AllFailed, Failover, Trail
from serving.outgoing import Call, Outgoing
from serving.protocols.base import Protocol
from serving.upstream import Answer, ErrorAnswer, UpstreamFailure

PROVIDER = Provider("p", "http://p.invalid", None)
ERROR = ErrorAnswer(500, {}, b'{"error": {"message": "no"}}')
FATES = ("answers", "fails", "refuses", "own-fault")
STATES = ("closed", "open", "cooling", "half_open")


class Scripted:
    """Stands where upstreams are: each model has its fate."""

    def __init__(self, fates: Mapping[str, str]) -> None:
        self.fates = fates
        self.asked: list[str] = []

    async def ask(
        self, target: Target, call: Call, request: Mapping[str, Any], *, deadline: float
    ) -> Answer:
        self.asked.append(target.name)
        fate = self.fates[target.name]
        if fate == "answers":
            return Answer(200, {}, b"{}")
        if fate == "own-fault":
            return Answer(400, {}, b'{"error": {"message": "yours"}}')
        if fate == "refuses":
            raise UpstreamFailure("context_length", ERROR, ours=True)
        raise UpstreamFailure("500", ERROR)


def breakers_in(states: Mapping[str, str]) -> Breakers:
    now = [0.0]
    found = Breakers(
        BreakerConfig(failures=1, open_s=10), clock=lambda: now[0], uniform=lambda: 1.0
    )
    for name, state in states.items():
        if state == "half_open":
            found.failed(name)
    now[0] = 11.0
    for name, state in states.items():
        if state == "open":
            found.failed(name)
        elif state == "cooling":
            found.failed(name, retry_after_s=60)
    assert {name: found.state(name) for name in states} == dict(states)
    return found


@given(st.lists(st.tuples(st.sampled_from(STATES), st.sampled_from(FATES)), min_size=1, max_size=6))
@settings(deadline=None)
def test_the_order_of_failover(models: list[tuple[str, str]]):
    names = [f"m{number}" for number in range(len(models))]
    states = {name: state for name, (state, _) in zip(names, models, strict=True)}
    fates = {name: fate for name, (_, fate) in zip(names, models, strict=True)}
    upstreams, trail = Scripted(fates), Trail()
    failover = Failover(upstreams, breakers_in(states))  # type: ignore[arg-type]
    accounts = Accounts(lambda model, usage: None)

    async def ask() -> Answer:
        outgoing = Outgoing(Protocol.CHAT, {"messages": []}, stream=False)
        targets = [Target(name, name, PROVIDER) for name in names]
        deadline = asyncio.get_running_loop().time() + 5
        try:
            return await failover.ask(
                targets, outgoing, Exchange(accounts), trail=trail, deadline=deadline
            )
        except AllFailed as failure:
            return failure.answer()

    answer = asyncio.run(ask())
    # Each at most once, the ready ones in their order before the open ones, cooling ones never.
    ready = [name for name in names if states[name] in ("closed", "half_open")]
    last = [name for name in names if states[name] == "open"]
    order = [*ready, *last]
    assert upstreams.asked == order[: len(upstreams.asked)]
    ends = [name for name in order if fates[name] in ("answers", "own-fault")]
    if ends:
        assert answer.status in (200, 400)
        assert upstreams.asked[-1] == ends[0]
        assert failover.breakers.state(ends[0]) == "closed"
    else:
        assert answer.status == (500 if order else 429)
        assert upstreams.asked == order
    told = {attempt.model for attempt in trail.attempts}
    assert told >= set(upstreams.asked)
    assert [a.model for a in trail.attempts if a.asked] == upstreams.asked
    assert trail.model == (upstreams.asked[-1] if upstreams.asked else None)
    for name in upstreams.asked:
        if fates[name] == "refuses":  # the prompt's fault: no mark against the model
            assert failover.breakers.state(name) == "closed"
