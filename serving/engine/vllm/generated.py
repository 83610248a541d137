"""Compatibility: routing models that answer by generating JSON, such as Plano's and Arch's.

They read one user message with routes and conversation in it, and write `{"route": ["a", "b"]}`
(Plano-Orchestrator, an empty list for none) or `{"route": "a"}` (Arch-Router, "other" for none).
Generation is held to that form by structured output, so that an answer cannot be malformed. The
wording around it is the checkpoint's: a template in its manifest, with {routes} and {conversation}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from routing.conversation import Conversation
from routing.decision import Decision
from routing.errors import InvalidRequest
from routing.manifest import GeneratedReadOut
from routing.tasks import NONE, Route
from serving.engine.base import EngineBusy, EngineError, EngineFacts, EngineMetrics
from serving.engine.contract import Contract
from serving.engine.vllm.reader import StateReader, reader_metrics

MESSAGES = 16
"""The last so many messages are read, as the reference does."""
BYTES = 4 * 8192
"""Of a conversation: the reference counts four bytes a token."""
HEAD_SHARE = 0.6
OTHER = "other"
MOST_ROUTES = 4
"""Of one answer."""


class GeneratingEngine:
    """Decides by the JSON that a checkpoint of the `generated` read-out writes.

    Its confidence is the probability of the whole answer, which such models are not calibrated for;
    what is left of 1 is spread evenly over the other outcomes.
    """

    name = "vllm"

    def __init__(self, contract: Contract, reader: StateReader, *, max_waiting: int = 256) -> None:
        read_out = contract.manifest.read_out
        assert isinstance(read_out, GeneratedReadOut)
        self._read_out = read_out
        self.version = contract.manifest.version
        self._facts = EngineFacts.of(self.name, contract.manifest)
        self._reader = reader
        self._max_waiting = max_waiting
        self._under_way = self._decisions = self._batched = 0

    def facts(self) -> EngineFacts:
        return self._facts

    def check_routes(self, routes: Sequence[Route]) -> None:
        """Raise InvalidRequest where there are none, or their lines leave no room."""
        check_generated_routes(self._read_out, routes)

    async def start(self) -> None:
        await self._reader.start()

    async def decide(self, routes: Sequence[Route], conversation: Conversation) -> Decision:
        """The decision at the last user turn; raises EngineBusy, InvalidRequest, EngineError."""
        if self._under_way >= self._max_waiting:
            raise EngineBusy(f"{self._under_way} decisions are under way already")
        self.check_routes(routes)
        names = [route.name for route in routes]
        text = question(self._read_out, routes, conversation)
        self._under_way += 1
        self._batched += self._under_way
        try:
            answer, chance = await self._reader.generate(
                text, answer_schema(self._read_out, names), answer_tokens(names)
            )
        finally:
            self._under_way -= 1
        self._decisions += 1
        return generated_decision(names, parse(self._read_out, answer, names), chance)

    def trouble(self) -> str | None:
        return self._reader.trouble()

    async def close(self) -> None:
        await self._reader.close()

    def metrics(self) -> EngineMetrics:
        """Counts since `start`."""
        return reader_metrics(self._reader, self._decisions, self._batched, self._under_way)


def check_generated_routes(read_out: GeneratedReadOut, routes: Sequence[Route]) -> None:
    """Raise InvalidRequest where there are none, or their lines leave no room."""
    if not routes:
        raise InvalidRequest("at least one route is needed", field="routes")
    size = len(routes_text(read_out, routes).encode())
    if size > BYTES // 2:
        raise InvalidRequest(
            f"{len(routes)} routes take {size} bytes, at most {BYTES // 2} may", field="routes"
        )


def question(
    read_out: GeneratedReadOut, routes: Sequence[Route], conversation: Conversation
) -> str:
    """The one user message that is asked."""
    # Not str.format: routes and conversations are full of braces.
    before, _, rest = read_out.prompt.partition("{routes}")
    between, _, after = rest.partition("{conversation}")
    return "".join(
        [before, routes_text(read_out, routes), between, conversation_text(conversation), after]
    )


def routes_text(read_out: GeneratedReadOut, routes: Sequence[Route]) -> str:
    """Routes as the format writes them: an object a line, or one list."""
    objects = [{"name": route.name, "description": route.description} for route in routes]
    if read_out.format == "plano-orchestrator":
        return "\n".join(json.dumps(each, ensure_ascii=False) for each in objects)
    return json.dumps(objects, ensure_ascii=False)


def conversation_text(conversation: Conversation) -> str:
    """The last messages of user and assistant as JSON, within BYTES.

    Older messages go first; a last one that is too long keeps its head and its tail.
    """
    kept: list[dict[str, str]] = []
    room = BYTES
    turns = [turn for turn in conversation.turns if turn.role in ("user", "assistant")]
    for turn in reversed(turns[-MESSAGES:]):
        size = len(turn.text.encode())
        text = turn.text
        if size > room:
            if kept:
                break
            text = _middle_cut(text, room)
        kept.append({"role": turn.role, "content": text})
        room -= min(size, room)
    return json.dumps(kept[::-1], ensure_ascii=False)


def _middle_cut(text: str, room: int) -> str:
    data = text.encode()
    head = int(room * HEAD_SHARE)
    first = data[:head].decode(errors="ignore")
    last = data[len(data) - (room - head) :].decode(errors="ignore")
    return f"{first}…{last}"


def answer_schema(read_out: GeneratedReadOut, names: Sequence[str]) -> dict[str, Any]:
    """JSON schema of all answers that make sense."""
    if read_out.format == "plano-orchestrator":
        route: dict[str, Any] = {
            "type": "array",
            "items": {"enum": list(names)},
            "maxItems": min(len(names), MOST_ROUTES),
        }
    else:
        route = {"enum": [*names, OTHER]}
    return {
        "type": "object",
        "properties": {"route": route},
        "required": ["route"],
        "additionalProperties": False,
    }


def answer_tokens(names: Sequence[str]) -> int:
    """Tokens that the longest answer may take: at worst one for each byte, and the form's own.

    An answer that were cut would be no JSON; one that is short ends by itself.
    """
    longest = sorted((len(json.dumps(name)) for name in names), reverse=True)[:MOST_ROUTES]
    return 64 + sum(longest)


def parse(read_out: GeneratedReadOut, answer: str, names: Sequence[str]) -> list[str]:
    """The routes of an answer, each once; raises EngineError for one of another form."""
    try:
        found = json.loads(answer)["route"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the answer is not of the form: {type(error).__name__}") from None
    if read_out.format == "arch-router":
        # A route may itself be called "other": then that is what is meant.
        found = [] if found == OTHER and OTHER not in names else [found]
    if not isinstance(found, list) or any(name not in names for name in found):
        raise EngineError("the answer names no route that was offered")
    return list(dict.fromkeys(found))


def generated_decision(names: Sequence[str], chosen: Sequence[str], chance: float) -> Decision:
    """A decision for the first chosen route, or none, with the answer's probability."""
    best = chosen[0] if chosen else NONE
    outcomes = [*names, NONE]
    rest = (1.0 - chance) / (len(outcomes) - 1)
    shares = {outcome: chance if outcome == best else rest for outcome in outcomes}
    return Decision(shares, chosen[0] if chosen else None, list(chosen), chance)
