"""What keys have spent this month, in memory: here, at other replicas, and by requests under way.

A key has used up its budget when the three together reach it. So calls that run side by side can
exceed a budget only by what they turn out to cost beyond what was expected of them, and replicas by
what each let through since it last read what the others spent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime


@dataclass(slots=True)
class Usage:
    """What answers to a key used in a month."""

    dollars: float = 0.0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: int = 0
    """Answers whose upstream told no usage: they count as much as was expected of them."""
    unpriced: int = 0
    """Answers of models whose price nobody knows: they count nothing."""

    def add(self, other: Usage) -> None:
        self.dollars += other.dollars
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.estimated += other.estimated
        self.unpriced += other.unpriced


@dataclass(slots=True)
class Account:
    """A key's month."""

    here: Usage = field(default_factory=Usage)
    elsewhere: Usage = field(default_factory=Usage)
    """At other processes, and at this one before its start, when last read."""
    reserved: float = 0.0
    """US dollars expected of requests under way."""

    @property
    def committed(self) -> float:
        """US dollars, those of requests under way included."""
        return self.here.dollars + self.elsewhere.dollars + self.reserved

    def total(self) -> Usage:
        """All that is known to be spent."""
        total = replace(self.here)
        total.add(self.elsewhere)
        return total


@dataclass(frozen=True, slots=True)
class Unsaved:
    """A key's usage here in a month, to be written: the whole of it, not what is new."""

    key: str
    month: str
    usage: Usage


class Ledger:
    """The accounts of the month; `clock` is the time of the day in seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ends = 0.0
        self._accounts: dict[str, Account] = {}
        self._changed: set[str] = set()
        self._asked: set[str] = set()
        self._closed: dict[tuple[str, str], Usage] = {}
        """Of months that are over and not yet written."""
        self.month = ""
        """As 2026-11, in UTC."""
        self._turn()

    def account(self, key: str) -> Account:
        """The account of the month that it is now."""
        if self._clock() >= self._ends:
            self._turn()
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account()
        return account

    def spend(self, key: str, usage: Usage) -> None:
        """An answer has ended."""
        self.account(key).here.add(usage)
        self._changed.add(key)

    def reserve(self, key: str, dollars: float) -> Account:
        """A request is under way; its account, from which to take the same away at its end."""
        account = self.account(key)
        account.reserved += dollars
        self._asked.add(key)
        return account

    def take_asked(self) -> set[str]:
        """Keys with requests since the last call."""
        asked, self._asked = self._asked, set()
        return asked

    def take_unsaved(self) -> list[Unsaved]:
        """What has changed since the last call; give it back to `keep` if it cannot be written."""
        changed, self._changed = self._changed, set()
        closed, self._closed = self._closed, {}
        rows = [Unsaved(key, month, usage) for (key, month), usage in closed.items()]
        return rows + [
            Unsaved(key, self.month, replace(self._accounts[key].here)) for key in changed
        ]

    def keep(self, rows: Iterable[Unsaved]) -> None:
        """Write these later, as they then are."""
        for row in rows:
            if row.month == self.month:
                self._changed.add(row.key)
            else:
                self._closed.setdefault((row.key, row.month), row.usage)

    def learn(self, month: str, elsewhere: Mapping[str, Usage]) -> None:
        """Take over what was spent elsewhere in a month."""
        if month == self.month:
            for key, usage in elsewhere.items():
                self.account(key).elsewhere = usage

    def _turn(self) -> None:
        """Begin the month that it is now."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        for key in self._changed:
            self._closed[key, self.month] = self._accounts[key].here
        self._accounts, self._changed = {}, set()
        self.month = f"{now:%Y-%m}"
        year, next_month = divmod(now.year * 12 + now.month, 12)
        self._ends = datetime(year, next_month + 1, 1, tzinfo=UTC).timestamp()
