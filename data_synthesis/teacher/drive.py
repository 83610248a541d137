"""Drives units of work: against the ledger alone, or over HTTP many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import aiohttp

from data_synthesis.teacher.budget import Budget
from data_synthesis.teacher.calls import Call, Reply
from data_synthesis.teacher.client import Endpoint, EndpointSettings
from data_synthesis.teacher.errors import CallFailed, CapReached, EndpointError, TeacherError
from data_synthesis.teacher.ledger import Ledger
from data_synthesis.teacher.recipe import TeacherRecipe
from data_synthesis.teacher.stages import Steps, Unit, Written

FAILURES_IN_A_ROW = 3
"""Calls given up one after the other, with no reply in between, before the run stops."""


@dataclass(frozen=True)
class Status:
    """How far a phase is."""

    phase: str
    """tasks, then talk."""
    done: int
    """Units that are finished or given up."""
    total: int
    calls: int
    """Finished calls of this and earlier runs."""
    money: float
    """Spent so far by all of them; 0 without prices."""
    tokens: int


Progress = Callable[[Status], None]


class Driver(Protocol):
    """Asks what units want to know and the ledger lacks.

    Raises CapReached when a cap stops it, EndpointError when the endpoint does; a unit whose call
    failed is left unfinished.
    """

    def __call__(self, units: Sequence[Unit], ledger: Ledger, progress: Reporter) -> None: ...


@dataclass
class Reporter:
    """Tells how far a phase is."""

    progress: Progress
    recipe: TeacherRecipe
    phase: str
    total: int
    done: int = 0

    def tell(self, ledger: Ledger, finished: int = 0) -> None:
        """Report, after `finished` further units."""
        self.done += finished
        money, tokens = Budget(self.recipe, ledger).spent()
        self.progress(Status(self.phase, self.done, self.total, len(ledger), money, tokens))


def advance(steps: Steps[Written], reply: Reply | None, ledger: Ledger) -> Call | Written:
    """The next call that the ledger cannot answer, or what the unit came to."""
    try:
        call = next(steps) if reply is None else steps.send(reply)
        while (known := ledger.get(call.key)) is not None:
            call = steps.send(known)
    except StopIteration as stop:
        written: Written = stop.value
        return written
    return call


def replay(unit: Unit, ledger: Ledger) -> Written | None:
    """What a unit came to by the ledger alone; None if a call is missing."""
    steps = unit.steps()
    result = advance(steps, None, ledger)
    steps.close()
    return result if isinstance(result, Written) else None


class HttpDriver:
    """Over HTTP, `concurrency` units at a time; each is followed to its end before the next."""

    def __init__(self, recipe: TeacherRecipe) -> None:
        self._recipe = recipe

    def __call__(self, units: Sequence[Unit], ledger: Ledger, progress: Reporter) -> None:
        asyncio.run(_Phase(self._recipe, ledger, progress).run(units))


class _Phase:
    def __init__(self, recipe: TeacherRecipe, ledger: Ledger, progress: Reporter) -> None:
        self._recipe = recipe
        self._ledger = ledger
        self._progress = progress
        self._budget = Budget(recipe, ledger)
        self._stop: TeacherError | None = None
        self._failed_in_row = 0
        self._failure: CallFailed | None = None
        self._answered = False

    async def run(self, units: Sequence[Unit]) -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._recipe.concurrency)
        ) as session:
            endpoint = Endpoint(EndpointSettings.of(self._recipe), session)
            queue = iter(units)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._recipe.concurrency, len(units))):
                        group.create_task(self._work(endpoint, queue))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None  # such as a full disk: the first says it
        if self._stop is None and self._failure is not None and not self._answered:
            self._stop = EndpointError(str(self._failure))
        if self._stop is not None:
            raise self._stop

    async def _work(self, endpoint: Endpoint, queue: Iterator[Unit]) -> None:
        for unit in queue:
            if self._stop is not None:
                return
            steps = unit.steps()
            try:
                result = advance(steps, None, self._ledger)
                while isinstance(result, Call):
                    reply = await self._ask(endpoint, result)
                    self._progress.tell(self._ledger)
                    result = advance(steps, reply, self._ledger)
            except CallFailed as error:
                if self._stop is not None:
                    return  # given up because of that, not by itself
                self._failed(error, endpoint)
            except TeacherError as error:
                self._halt(error, endpoint)
                return
            finally:
                steps.close()
            self._progress.tell(self._ledger, finished=1)

    async def _ask(self, endpoint: Endpoint, call: Call) -> Reply:
        await self._budget.wait_and_hold(call)
        try:
            if self._stop is not None:
                raise CallFailed("the run is stopping")
            reply = await endpoint.ask(call)
            self._ledger.append(call, reply)
        finally:
            await self._budget.release(call)
        self._failed_in_row, self._answered = 0, True
        return reply

    def _failed(self, error: CallFailed, endpoint: Endpoint) -> None:
        self._failure = error
        self._failed_in_row += 1
        if self._failed_in_row >= FAILURES_IN_A_ROW:
            self._halt(EndpointError(str(error)), endpoint)

    def _halt(self, error: TeacherError, endpoint: Endpoint) -> None:
        """Let what is under way finish; a refusal weighs more than a cap."""
        if self._stop is None or isinstance(self._stop, CapReached):
            self._stop = error
        endpoint.stopping.set()
