"""Budgets and token limits of a request that is about to ask a model: first checked, then settled.

A request is expected to cost what the dearest model that may be asked would: for its prompt, and
for an answer as long as the task's usually are, or as the client's cap allows if that is less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serving.access.ledger import Account, Ledger, Usage
from serving.access.limit_headers import refused
from serving.access.principal import Principal
from serving.access.rates import Rates, Reading
from serving.accounts import Exchange, Settled
from serving.catalogue import Target
from serving.costs import Costs, OutputLengths
from serving.errors import ApiError
from serving.needs import Need
from serving.protocols.base import Protocol


@dataclass(slots=True)
class Spending:
    """The one place where requests with a key are counted."""

    ledger: Ledger
    rates: Rates
    costs: Costs
    outputs: OutputLengths
    unknown_prices: Literal["allow", "refuse"]

    async def begin(
        self,
        principal: Principal,
        exchange: Exchange,
        candidates: Sequence[Target],
        protocol: Protocol,
        readings: list[Reading],
    ) -> list[Target]:
        """The candidates that the key may pay for.

        Puts a hold into the exchange, which settles it at its end, and the key's bucket of tokens,
        if it has one, among the readings. Raises ApiError 429 where tokens or budget do not
        suffice; for a budget 402 in Anthropic's protocol.
        """
        key = principal.key_id
        if key is None:
            return list(candidates)
        limits, need = principal.limits, exchange.need
        allowed = list(candidates)
        expected = 0.0
        if limits.monthly_budget is not None:
            allowed, expected = self._priced(candidates, need, exchange.route)
            self._check(key, limits.monthly_budget, expected, protocol)
        tokens = 0
        if limits.tokens_per_minute is not None:
            output = self.outputs.expected_output(allowed[0].name, exchange.route, need)
            tokens = math.ceil(need.prompt_tokens + output)
            reading = await self.rates.take(key, "tokens", limits.tokens_per_minute, tokens)
            readings.append(reading)
            if reading.wait_s > 0:
                raise refused(reading)
        account = self.ledger.reserve(key, expected)
        exchange.hold = _Hold(self, principal, exchange, allowed[0].name, account, expected, tokens)
        return allowed

    def expected(self, model: str, need: Need, route: str | None) -> float | None:
        """US dollars that a request is expected to cost; None where the price is unknown."""
        output = self.outputs.expected_output(model, route, need)
        return self.costs.expected_cost(model, need, output)

    def _priced(
        self, candidates: Sequence[Target], need: Need, route: str | None
    ) -> tuple[list[Target], float]:
        priced = [(each, self.expected(each.name, need, route)) for each in candidates]
        if self.unknown_prices == "refuse":
            priced = [(each, cost) for each, cost in priced if cost is not None]
            if not priced:
                raise ApiError(
                    403,
                    "This key has a budget, and the price of no model that could answer is known.",
                    "permission_error",
                    param="model",
                    code="price_unknown",
                )
        dearest = max((cost for _, cost in priced if cost is not None), default=0.0)
        return [each for each, _ in priced], dearest

    def _check(self, key: str, budget: float, expected: float, protocol: Protocol) -> None:
        committed = self.ledger.account(key).committed
        if committed < budget and committed + expected <= budget:
            return
        raise ApiError(
            402 if protocol is Protocol.MESSAGES else 429,
            f"This key's budget of {budget:g} US dollars for {self.ledger.month} does not suffice.",
            "insufficient_quota",
            code="insufficient_quota",
            # Clients that try again by themselves would only be refused again.
            headers={"x-should-retry": "false"},
        )


@dataclass(slots=True)
class _Hold:
    """What one request under way has taken, until it is known what it used."""

    spending: Spending
    principal: Principal
    exchange: Exchange
    model: str
    """Asked first."""
    account: Account
    dollars: float
    tokens: int

    def settle(self, settled: Settled) -> None:
        """The answer has ended."""
        told, model = settled.usage, settled.target.name
        cost = settled.cost
        if told is None:
            cost = self._expected(model)
            used = Usage(requests=1, estimated=1)
        else:
            used = Usage(0.0, 1, told.input_tokens, told.output_tokens)
        used.dollars = cost or 0.0
        used.unpriced = int(cost is None)
        self._end(used, None if told is None else told.input_tokens + told.output_tokens)

    def release(self, *, asked: bool) -> None:
        """There is no answer. A client that left while a model was `asked` pays what was expected:
        or it could have answers for nothing."""
        if asked:
            cost = self._expected(self.model)
            used = Usage(cost or 0.0, requests=1, estimated=1, unpriced=int(cost is None))
            self._end(used, None)
        else:
            self._end(None, 0)

    def _expected(self, model: str) -> float | None:
        return self.spending.expected(model, self.exchange.need, self.exchange.route)

    def _end(self, used: Usage | None, tokens: int | None) -> None:
        key, limit = self.principal.key_id, self.principal.limits.tokens_per_minute
        assert key is not None
        self.account.reserved = max(0.0, self.account.reserved - self.dollars)
        if used is not None:
            self.spending.ledger.spend(key, used)
        if limit is not None and tokens is not None:
            # A bucket gives no more than it holds for a request that is larger than itself.
            taken = min(self.tokens, limit)
            self.spending.rates.correct(key, "tokens", limit, tokens - taken)
