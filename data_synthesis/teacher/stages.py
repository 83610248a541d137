"""The stages as generators: each yields a call and is sent the reply, however it was come by.

What is asked next depends only on the recipe, the prompts and the replies. So the same generators
run over HTTP, on Ray, and over the ledger alone.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from pydantic import BaseModel

from data_synthesis.sources.stored import StoredDialogue, StoredRequest, StoredTask, StoredTurn
from data_synthesis.teacher.answers import (
    NONE,
    EdgeCase,
    EdgeCases,
    Judgement,
    Policies,
    RefinedPolicies,
    Unreadable,
    Verdict,
    WrittenDialogue,
    WrittenTurn,
    read_answer,
    strict_schema,
)
from data_synthesis.teacher.calls import Call, Reply, Stage
from data_synthesis.teacher.prompts import Prompts
from data_synthesis.teacher.recipe import TeacherRecipe
from data_synthesis.teacher.topics import SOURCE, Subject, Topic, check_policies, check_refined

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
Steps = Generator[Call, Reply, T]

EDGE_BATCH = 8
"""Hard cases asked for in one call: more of them begin to resemble each other."""


@dataclass
class Written:
    """What one unit of work came to."""

    tally: Counter[str]
    """What was asked again or turned down, and why."""
    tasks: Sequence[StoredTask] = ()
    dialogues: Sequence[StoredDialogue] = ()
    requests: Sequence[StoredRequest] = ()


@dataclass(frozen=True)
class Unit:
    """Work that can be done by itself; `steps` starts it from the beginning."""

    id: str
    steps: Callable[[], Steps[Written]]


@dataclass(frozen=True)
class Stages:
    """The stages of one recipe."""

    recipe: TeacherRecipe
    prompts: Prompts

    def tasks(self, subject: Subject) -> Steps[Written]:
        """Tasks of a subject: as the taxonomy has them, or written and then refined."""
        tally: Counter[str] = Counter()
        if subject.tasks is not None:
            return Written(tally, subject.tasks)
        about = {"topic": subject.text, "elsewhere": subject.elsewhere}
        prompt = self.prompts.render("policies", count=self.recipe.policies_per_topic, **about)
        ask = _Ask(self, subject.slug, tally)
        draft = yield from ask("policies", prompt, Policies, check_policies)
        if draft is None:
            return Written(tally)
        prompt = self.prompts.render("refine", policies=draft, **about)
        tasks = yield from ask(
            "refine", prompt, RefinedPolicies, lambda answer: check_refined(answer, subject)
        )
        return Written(tally, tasks or ())

    def dialogue(self, topic: Topic, number: int) -> Steps[Written]:
        """One dialogue, written anew while the judge objects to a turn."""
        tally: Counter[str] = Counter()
        unit = f"{topic.subject.slug}/{number}"
        plan = self._plan(topic, unit)
        ask = _Ask(self, unit, tally)
        objections = ""
        for _ in range(self.recipe.attempts):
            prompt = self.prompts.render("dialogue", objections=objections, **plan, **_about(topic))
            written = yield from ask(
                "dialogue", prompt, WrittenDialogue, lambda answer: self._check(answer, topic)
            )
            if written is None:
                break
            conversation = _Conversation([written.turns])
            verdicts = yield from self._judge(ask, topic, conversation)
            if verdicts is None:
                break
            faults = conversation.faults(verdicts)
            if not faults:
                name = f"{SOURCE}/{unit}"
                return Written(tally, dialogues=[_stored(name, written.turns, topic)])
            tally["rejected_dialogues"] += 1
            tally["rejected_turns"] += len(faults)
            objections = self._objections(faults)
        tally["lost_dialogues"] += 1
        return Written(tally)

    def edge_cases(self, topic: Topic, batch: int, count: int) -> Steps[Written]:
        """Up to `count` hard cases; those that the judge objects to are replaced."""
        tally: Counter[str] = Counter()
        unit = f"{topic.subject.slug}/edge/{batch}"
        ask = _Ask(self, unit, tally)
        kept: list[EdgeCase] = []
        objections = ""
        for _ in range(self.recipe.attempts):
            missing = count - len(kept)
            prompt = self.prompts.render(
                "edge", count=missing, objections=objections, **_about(topic)
            )
            cases = yield from ask(
                "edge", prompt, EdgeCases, lambda answer: _check_edges(answer, topic)
            )
            if cases is None:
                break
            said = {case.content for case in kept}
            cases = [case for case in cases if case.content not in said][:missing]
            conversation = _Conversation([_turns(case) for case in cases])
            verdicts = yield from self._judge(ask, topic, conversation)
            if verdicts is None:
                break
            bad = conversation.faulty(verdicts)
            kept += [case for index, case in enumerate(cases) if index not in bad]
            tally["rejected_edge_cases"] += len(bad)
            if len(kept) == count:
                break
            objections = self._objections(conversation.faults(verdicts))
        tally["lost_edge_cases"] += count - len(kept)
        return _edges(unit, kept, topic, tally)

    def _judge(
        self, ask: _Ask, topic: Topic, conversation: _Conversation
    ) -> Steps[dict[int, Verdict] | None]:
        numbers = ", ".join(str(number) for number in conversation.users)
        prompt = self.prompts.render(
            "judge", conversations=conversation.text, numbers=numbers, **_about(topic)
        )
        return (yield from ask("judge", prompt, Judgement, conversation.check))

    def _plan(self, topic: Topic, unit: str) -> dict[str, str | int]:
        """Drawn from the recipe's seed, so that it does not depend on the order of work."""
        rng = Random(f"{self.recipe.seed}/{unit}")
        turns = rng.randint(self.recipe.turns.low, self.recipe.turns.high)
        names = list(topic.labels)
        focus = rng.sample(names, min(len(names), rng.randint(2, 4), max(turns, 1)))
        return {
            "turns": turns,
            "focus": ", ".join(focus),
            "switches": rng.randint(min(1, turns - 1), max(turns // 2, min(1, turns - 1))),
            "ellipses": turns // 3,
            "nones": int(turns > 1 and rng.random() < self.recipe.none_share),
            "manner": rng.choice(self.recipe.manners),
        }

    def _check(self, answer: WrittenDialogue, topic: Topic) -> WrittenDialogue:
        users = sum(turn.role == "user" for turn in answer.turns)
        low, high = self.recipe.turns.low, self.recipe.turns.high
        if not low <= users <= high:
            raise Unreadable("invalid", f"turns: there must be {low} to {high} user turns")
        if answer.turns[0].role != "user":
            raise Unreadable("invalid", "turns: the first one must be the user's")
        return WrittenDialogue(turns=[_labelled(turn, topic) for turn in answer.turns])

    def _objections(self, faults: Sequence[str]) -> str:
        return self.prompts.render("objections", objections="\n".join(faults)) if faults else ""


@dataclass
class _Ask:
    """Asks until an answer can be used, at most `attempts` times in a row."""

    stages: Stages
    unit: str
    tally: Counter[str]

    def __post_init__(self) -> None:
        self._attempts: dict[Stage, Iterator[int]] = {}

    def __call__(
        self, stage: Stage, prompt: str, kind: type[M], check: Callable[[M], T]
    ) -> Steps[T | None]:
        """What `check` makes of the answer; None if no answer could be used."""
        recipe, prompts = self.stages.recipe, self.stages.prompts
        numbers = self._attempts.setdefault(stage, itertools.count())
        schema = strict_schema(kind)
        text = prompt
        for _ in range(recipe.attempts):
            reply = yield Call(
                stage,
                self.unit,
                (("user", text),),
                schema_name=stage,
                schema=schema,
                plain=prompts.render("plain_json", schema=schema),
                model=recipe.judge if stage == "judge" else recipe.model,
                max_tokens=recipe.max_tokens,
                temperature=0.0 if stage == "judge" else recipe.temperature,
                attempt=next(numbers),
            )
            try:
                return check(read_answer(reply, kind))
            except Unreadable as error:
                self.tally[f"unreadable_{error.kind}"] += 1
                text = prompt + "\n\n" + prompts.render("retry", problem=str(error))
        self.tally[f"gave_up_{stage}"] += 1
        return None


class _Conversation:
    """Conversations for the judge, with the user's turns numbered over all of them."""

    def __init__(self, conversations: Sequence[Sequence[WrittenTurn]]) -> None:
        self.users: dict[int, tuple[int, WrittenTurn]] = {}
        """Conversation and turn of each number, from 1."""
        parts = []
        for index, turns in enumerate(conversations):
            lines = [f"Conversation {index + 1}"]
            for turn in turns:
                if turn.role == "user":
                    number = len(self.users) + 1
                    self.users[number] = (index, turn)
                    lines.append(f"[{number}] user, label {turn.task}: {turn.content}")
                else:
                    lines.append(f"assistant: {turn.content}")
            parts.append("\n".join(lines))
        self.text = "\n\n".join(parts)

    def check(self, answer: Judgement) -> dict[int, Verdict]:
        """Verdicts by number; raises Unreadable unless each user turn has exactly one."""
        numbers = [verdict.number for verdict in answer.verdicts]
        if sorted(numbers) != list(self.users):
            raise Unreadable("invalid", "verdicts: give exactly one for each of the numbers")
        return {verdict.number: verdict for verdict in answer.verdicts}

    def faulty(self, verdicts: dict[int, Verdict]) -> set[int]:
        """Conversations with a turn that does not fit."""
        return {self.users[number][0] for number, v in verdicts.items() if not v.fits}

    def faults(self, verdicts: dict[int, Verdict]) -> list[str]:
        """The judge's objections, one a line."""
        lines = []
        for number, verdict in verdicts.items():
            if not verdict.fits:
                turn = self.users[number][1]
                better = verdict.better or "another label"
                lines.append(
                    f'- "{turn.content}" was labelled {turn.task}, but {better} would be better. '
                    f"{verdict.objection}".rstrip()
                )
        return lines


def _about(topic: Topic) -> dict[str, str]:
    return {
        "topic": topic.subject.text,
        "policies": topic.policies,
        "elsewhere": topic.subject.elsewhere,
    }


def _label(text: str, topic: Topic) -> str:
    name = text.strip("`\"' ").lower()
    if name != NONE and name not in topic.labels:
        raise Unreadable("invalid", f"task: {text[:60]!r} is neither a task's name nor none")
    return name


def _labelled(turn: WrittenTurn, topic: Topic) -> WrittenTurn:
    task = _label(turn.task, topic) if turn.role == "user" else ""
    return WrittenTurn(role=turn.role, content=turn.content, task=task)


def _check_edges(answer: EdgeCases, topic: Topic) -> list[EdgeCase]:
    cases = {}
    for case in answer.cases:
        label = _label(case.task, topic)
        before = [_labelled(turn, topic) for turn in case.before]
        if case.kind == "follow_up":
            if not before or before[0].role != "user" or before[-1].role != "assistant":
                raise Unreadable("invalid", "before: must lead from a user turn to an assistant's")
        elif before:
            raise Unreadable("invalid", "before: must be empty unless the kind is follow_up")
        elif (label == NONE) != (case.kind == "out_of_scope"):
            raise Unreadable("invalid", "task: none belongs to out_of_scope, a task to border")
        cases[case.content] = EdgeCase(
            kind=case.kind, before=before, content=case.content, task=label
        )
    if not cases:
        raise Unreadable("invalid", "cases: there are none")
    return list(cases.values())


def _turns(case: EdgeCase) -> list[WrittenTurn]:
    return [*case.before, WrittenTurn(role="user", content=case.content, task=case.task)]


def _stored(name: str, turns: Sequence[WrittenTurn], topic: Topic) -> StoredDialogue:
    return StoredDialogue(
        id=name,
        turns=[
            StoredTurn(
                role=turn.role,
                content=turn.content,
                tasks=_keys(turn.task, topic) if turn.role == "user" else None,
            )
            for turn in turns
        ],
    )


def _keys(label: str, topic: Topic) -> list[str]:
    return [] if label == NONE else [topic.labels[label]]


def _edges(unit: str, kept: Sequence[EdgeCase], topic: Topic, tally: Counter[str]) -> Written:
    """Cases that make sense by themselves are requests, the others short dialogues."""
    dialogues, requests = [], []
    for index, case in enumerate(kept):
        tally[f"kept_{case.kind}"] += 1
        if case.before:
            dialogues.append(_stored(f"{SOURCE}/{unit}/{index}", _turns(case), topic))
        else:
            requests.append(StoredRequest(text=case.content, tasks=_keys(case.task, topic)))
    return Written(tally, dialogues=dialogues, requests=requests)
