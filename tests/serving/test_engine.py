"""The embedded engine through its public interface, on tiny random checkpoints."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TinyCheckpoint, make_checkpoint
from transformers import AutoModelForCausalLM

from routing.conversation import Conversation, Turn
from routing.decision import Decision, softmax
from routing.errors import InvalidRequest, RoutesTooLong
from routing.layout import Budget, Layout, choose_identifiers
from routing.pointer import POINTER_FILE, PointerHead
from routing.tasks import NONE, Route
from routing.tokenizer import FileTokenizer
from serving.engine.base import EngineBusy, EngineError
from serving.engine.embedded import EmbeddedEngine

WORDS = ["fix", "the", "leaky", "tap", "in", "python", "poem", "über", "資料", "sum", "of", "rows"]
ROUTES = [
    Route(name=name, description=f"Everything about {name}, and nothing else.")
    for name in ("code", "prose", "plumbing", 'l\'été "quoted"')
]


@asynccontextmanager
async def running(checkpoint: TinyCheckpoint, **options: int) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(checkpoint.folder, checkpoint.base, **options)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def say(*texts: str) -> Conversation:
    """User and assistant in turn, the user first."""
    roles = ("user", "assistant")
    return Conversation(tuple(Turn(roles[i % 2], text, i) for i, text in enumerate(texts)))  # type: ignore[arg-type]


def random_texts(seed: int, turns: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 40))) for _ in range(turns)]


def difference(one: Decision, other: Decision) -> float:
    assert list(one.distribution) == list(other.distribution)
    return max(abs(p - other.distribution[name]) for name, p in one.distribution.items())


@pytest.mark.parametrize("read_out", ["pointer", "identifier"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "qwen3_moe"])
async def test_cached_turn_by_turn_equals_from_scratch(
    tmp_path: Path, architecture: str, read_out: str
) -> None:
    checkpoint = make_checkpoint(
        tmp_path / "checkpoint",
        architecture=architecture,  # type: ignore[arg-type]
        read_out=read_out,  # type: ignore[arg-type]
        budget=Budget(max_tokens=512, user_tokens=64),
    )
    # The small cache holds about one conversation, so evictions happen all the time.
    async with (
        running(checkpoint) as cached,
        running(checkpoint, cache_bytes=600_000) as evicting,
        running(checkpoint, cache_bytes=0) as uncached,
    ):
        chats = [random_texts(seed, 13) for seed in range(3)]
        seen: list[Decision] = []
        for length in range(1, 14, 2):  # conversations take turns, and outgrow the budget
            for chat in chats:
                conversation = say(*chat[:length])
                truth = await uncached.decide(ROUTES, conversation)
                seen.append(truth)
                for engine in (cached, evicting):
                    assert difference(await engine.decide(ROUTES, conversation), truth) < 1e-4
        assert cached.metrics().tokens_computed < uncached.metrics().tokens_computed / 3
        assert cached.metrics().cache_evictions == 0
        assert evicting.metrics().cache_evictions > 10
        assert evicting.metrics().tokens_cached > 0
        # Random as it is, the model must react to what it reads, or the above would prove nothing.
        assert max(difference(seen[0], other) for other in seen) > 0.01


@pytest.mark.parametrize("read_out", ["pointer", "identifier"])
async def test_decision_is_the_models_own(tmp_path: Path, read_out: str) -> None:
    """Against one plain pass of transformers over the laid-out prompt, read out by hand."""
    tiny = make_checkpoint(tmp_path / "checkpoint", read_out=read_out, seed=5)  # type: ignore[arg-type]
    tokenizer = FileTokenizer(tiny.folder / "tokenizer.json")
    identifiers = choose_identifiers(tokenizer, 32) if read_out == "identifier" else None
    layout = Layout(tokenizer, Budget(), identifiers)
    conversation = say("Mend my tap.", "With pleasure.", "Now rhyme on it.")
    by_name = sorted(ROUTES, key=lambda route: route.name)
    assert by_name != ROUTES
    prompt = layout.decision_prompt(layout.prefix(by_name), conversation)
    model = AutoModelForCausalLM.from_pretrained(tiny.folder, dtype=torch.float32)
    with torch.inference_mode():
        output = model(torch.tensor([prompt.tokens]), output_hidden_states=True)
    states = output.hidden_states[-1][0].numpy()
    if identifiers is None:
        head = PointerHead.load(tiny.folder / POINTER_FILE)
        keys = head.keys(states[list(prompt.prefix.line_ends)])
        scores = head.scores(states[-1], keys)
    else:
        assert prompt.prefix.identifiers is not None
        scores = output.logits[0, -1, list(prompt.prefix.identifiers)].numpy()
    async with running(tiny) as engine:
        decision = await engine.decide(ROUTES, conversation)
    assert list(decision.distribution) == [*(route.name for route in ROUTES), NONE]
    names = [*(route.name for route in by_name), NONE]
    found = [decision.distribution[name] for name in names]
    assert np.allclose(found, softmax(scores), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
async def test_adapter_is_merged_into_its_base(tmp_path: Path, dtype: torch.dtype) -> None:
    adapter = make_checkpoint(tmp_path / "adapter", weights="adapter", adapter_dtype=dtype, seed=2)
    plain = make_checkpoint(tmp_path / "plain", seed=2)
    async with running(adapter) as adapted, running(plain) as base:
        conversation = say("Which column is missing?")
        changed = await adapted.decide(ROUTES, conversation)
        assert difference(changed, await base.decide(ROUTES, conversation)) > 0.01
        assert adapted.version != base.version


async def test_asking_again_computes_nothing(tiny: TinyCheckpoint) -> None:
    async with running(tiny) as engine:
        first = await engine.decide(ROUTES, say("one", "two", "three"))
        before = engine.metrics()
        assert await engine.decide(ROUTES, say("one", "two", "three")) == first
        # An earlier turn was read on the way; a tool loop after the last user turn changes nothing.
        await engine.decide(ROUTES, say("one"))
        assert await engine.decide(ROUTES, say("one", "two", "three", "four")) == first
        after = engine.metrics()
        assert after.tokens_computed == before.tokens_computed
        assert after.decisions == before.decisions + 3


async def test_new_turn_computes_only_itself(tiny: TinyCheckpoint) -> None:
    layout = Layout(FileTokenizer(tiny.folder / "tokenizer.json"), Budget())
    async with running(tiny) as engine:
        await engine.decide(ROUTES, say("one", "two", "three"))
        before = engine.metrics().tokens_computed
        conversation = say("one", "two", "three", "four", "five")
        await engine.decide(ROUTES, conversation)
        new = sum(len(turn.tokens) for turn in layout.turns(conversation)[3:])
        assert engine.metrics().tokens_computed - before == new


@pytest.mark.parametrize("capacity", [0, 150_000, 300_000])
async def test_cache_stays_within_its_bytes(tiny: TinyCheckpoint, capacity: int) -> None:
    async with running(tiny, cache_bytes=capacity) as engine:
        for seed in range(8):
            routes = [Route(name=f"r{seed % 3}", description="A task."), *ROUTES]
            texts = random_texts(seed, 5)
            for length in (1, 3, 5):
                await engine.decide(routes, say(*texts[:length]))
                assert engine.metrics().cache_bytes <= capacity
        metrics = engine.metrics()
        assert (metrics.cache_entries > 0) == (capacity > 0)


async def test_wordings_of_routes_are_told_apart(tiny: TinyCheckpoint) -> None:
    """Routers that share names must not share a cached prefix."""
    others = [Route(name=r.name, description="Something else.") for r in ROUTES]
    async with running(tiny) as shared, running(tiny, cache_bytes=0) as fresh:
        for routes in [ROUTES, others, ROUTES]:
            conversation = say("Sum the rows.")
            decision = await shared.decide(routes, conversation)
            assert difference(decision, await fresh.decide(routes, conversation)) < 1e-4


@pytest.mark.parametrize("read_out", ["pointer", "identifier"])
async def test_the_order_of_routes_changes_nothing(tmp_path: Path, read_out: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", read_out=read_out)  # type: ignore[arg-type]
    async with running(checkpoint) as engine:
        conversation = say("Sum the rows.")
        first = await engine.decide(ROUTES, conversation)
        assert list(first.distribution) == [*(route.name for route in ROUTES), NONE]
        assert len(set(first.distribution.values())) == len(ROUTES) + 1
        computed = engine.metrics().tokens_computed
        for routes in (ROUTES[::-1], ROUTES[2:] + ROUTES[:2]):
            again = await engine.decide(routes, conversation)
            assert list(again.distribution) == [*(route.name for route in routes), NONE]
            assert again.distribution == pytest.approx(first.distribution, rel=1e-6)
            assert again.route == first.route
        assert engine.metrics().tokens_computed == computed


async def test_huge_message_is_trimmed_not_refused(tiny: TinyCheckpoint) -> None:
    async with running(tiny) as engine:
        huge = "word " * 100_000
        decision = await engine.decide(ROUTES, say(huge))
        assert sum(decision.distribution.values()) == pytest.approx(1)
        assert engine.metrics().tokens_computed <= Budget().max_tokens
        ends_differ = await engine.decide(ROUTES, say(huge + "Now a poem, please."))
        assert difference(decision, ends_differ) > 0


async def test_what_cannot_be_decided_is_said(tiny: TinyCheckpoint) -> None:
    async with running(tiny) as engine:
        with pytest.raises(InvalidRequest, match="no user turn"):
            await engine.decide(ROUTES, Conversation(()))
        long = "many words make a description long " * 30
        many = [Route(name=f"r{i}", description=long) for i in range(40)]
        with pytest.raises(RoutesTooLong):
            engine.check_routes(many)
        with pytest.raises(RoutesTooLong):
            await engine.decide(many, say("hello"))
        engine.check_routes(ROUTES)
        assert (await engine.decide(ROUTES, say("hello"))).confidence > 0


@dataclass(eq=False)
class Held(Conversation):
    """A conversation that takes as long to read as the test wants."""

    begun: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def up_to_last_user_turn(self) -> Conversation:
        self.begun.set()
        assert self.go_on.wait(30)
        return super().up_to_last_user_turn()


@contextmanager
def held() -> Iterator[Held]:
    conversation = Held(say("Hold on.").turns)
    try:
        yield conversation
    finally:
        conversation.go_on.set()


async def begun(conversation: Held) -> None:
    assert await asyncio.to_thread(conversation.begun.wait, 30)


async def test_loop_goes_on_while_a_decision_runs(tiny: TinyCheckpoint) -> None:
    async with running(tiny) as engine:
        with held() as slow:
            decision = asyncio.create_task(engine.decide(ROUTES, slow))
            await begun(slow)
            for _ in range(100):  # the loop turns although the decision does not end
                await asyncio.sleep(0)
            assert not decision.done()
        assert (await decision).confidence > 0

        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        for seed in range(5):  # real computing, not just waiting
            await engine.decide(ROUTES, say(*[" ".join(random_texts(seed, 20))] * 7))
        ticking.cancel()
        assert ticks > 5


async def test_too_many_waiting_is_busy_at_once(tiny: TinyCheckpoint) -> None:
    async with running(tiny, max_waiting=2) as engine:
        with held() as slow:
            runs = asyncio.create_task(engine.decide(ROUTES, slow))
            await begun(slow)
            waiting = [asyncio.create_task(engine.decide(ROUTES, say("next"))) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(EngineBusy):
                await engine.decide(ROUTES, say("one too many"))
            waiting[0].cancel()
            await asyncio.sleep(0)
            waiting.append(asyncio.create_task(engine.decide(ROUTES, say("now there is room"))))
            await asyncio.sleep(0)
        assert (await runs).confidence > 0
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert isinstance(results[1], Decision)
        assert isinstance(results[2], Decision)


async def test_cancelled_while_waiting_is_never_computed(tiny: TinyCheckpoint) -> None:
    async with running(tiny) as engine:
        with held() as slow:
            runs = asyncio.create_task(engine.decide(ROUTES, slow))
            await begun(slow)
            given_up = [asyncio.create_task(engine.decide(ROUTES, say(f"{i}"))) for i in range(9)]
            await asyncio.sleep(0)
            for task in given_up:
                task.cancel()
            await asyncio.gather(*given_up, return_exceptions=True)
        await runs
        await engine.decide(ROUTES, say("after them"))
        assert engine.metrics().decisions == 2


async def test_cancelled_while_running_leaves_the_engine_usable(tiny: TinyCheckpoint) -> None:
    async with running(tiny) as engine:
        with held() as slow, pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.decide(ROUTES, slow), 0.05)
        assert (await engine.decide(ROUTES, say("next"))).confidence > 0


async def test_close_fails_what_waits_and_ends_the_thread(tiny: TinyCheckpoint) -> None:
    engine = EmbeddedEngine(tiny.folder, tiny.base)
    await engine.start()
    with held() as slow:
        runs = asyncio.create_task(engine.decide(ROUTES, slow))
        await begun(slow)
        waits = asyncio.create_task(engine.decide(ROUTES, say("waits")))
        await asyncio.sleep(0)
        closing = asyncio.create_task(engine.close())
        with pytest.raises(EngineError, match="closed"):
            await waits
        assert not closing.done()
    # The running one is abandoned before the next layer, not computed to its end.
    with pytest.raises(EngineError, match="closed"):
        await runs
    await closing
    await engine.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("pointsman-engine") for name in names)
    with pytest.raises(EngineError, match="closed"):
        await engine.decide(ROUTES, say("too late"))


async def test_not_started_is_an_error_not_a_hang(tiny: TinyCheckpoint) -> None:
    engine = EmbeddedEngine(tiny.folder, tiny.base)
    with pytest.raises(EngineError, match="started"):
        await engine.decide(ROUTES, say("hello"))
    await engine.close()
