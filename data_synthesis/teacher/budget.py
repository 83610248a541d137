"""What was spent, and whether a further call may start."""

from __future__ import annotations

import asyncio

from data_synthesis.teacher.calls import Call
from data_synthesis.teacher.errors import CapReached
from data_synthesis.teacher.ledger import Ledger
from data_synthesis.teacher.recipe import TeacherRecipe


def money(recipe: TeacherRecipe, model: str, input_tokens: int, output_tokens: int) -> float:
    """Money for tokens of a model; 0 where its prices are unknown."""
    prices = recipe.prices_of(model)
    if prices is None:
        return 0.0
    return (input_tokens * prices.input + output_tokens * prices.output) / 1e6


class Budget:
    """Caps on money and tokens, over all that the ledger holds.

    A call is let through only if the most that it can use, together with what is under way, keeps
    within the caps: a cap holds as far as three characters are at least one token.
    """

    def __init__(self, recipe: TeacherRecipe, ledger: Ledger) -> None:
        self._recipe = recipe
        self._ledger = ledger
        self._reserved: dict[str, tuple[float, int]] = {}
        self._freed = asyncio.Condition()

    def spent(self) -> tuple[float, int]:
        """Money and tokens of all finished calls."""
        used = self._ledger.used.items()
        paid = sum(money(self._recipe, model, *tokens) for model, tokens in used)
        return paid, sum(sum(tokens) for _, tokens in used)

    def fits(self, call: Call) -> bool:
        """Whether the call may start now."""
        paid, tokens = self.spent()
        most, most_tokens = self._most(call)
        paid += most + sum(amount for amount, _ in self._reserved.values())
        tokens += most_tokens + sum(number for _, number in self._reserved.values())
        cap, token_cap = self._recipe.spend_cap, self._recipe.token_cap
        return (cap is None or paid <= cap) and (token_cap is None or tokens <= token_cap)

    def hold(self, call: Call) -> None:
        """Set aside the most that the call can use; raises CapReached if that is too much."""
        if not self.fits(call):
            raise CapReached(self._reason())
        self._reserved[call.key] = self._most(call)

    async def wait_and_hold(self, call: Call) -> None:
        """As `hold`, after waiting for calls under way that may turn out cheaper."""
        async with self._freed:
            await self._freed.wait_for(lambda: self.fits(call) or not self._reserved)
            self.hold(call)

    def drop(self, call: Call) -> None:
        """Free what `hold` set aside; what the call used is in the ledger by now."""
        del self._reserved[call.key]

    async def release(self, call: Call) -> None:
        """As `drop`, and tell those who wait."""
        async with self._freed:
            self.drop(call)
            self._freed.notify_all()

    def _most(self, call: Call) -> tuple[float, int]:
        tokens = call.prompt_tokens
        return (
            money(self._recipe, call.model, tokens, call.max_tokens),
            tokens + call.max_tokens,
        )

    def _reason(self) -> str:
        paid, tokens = self.spent()
        caps = []
        if self._recipe.spend_cap is not None:
            caps.append(f"{paid:.4f} of spend_cap {self._recipe.spend_cap:g}")
        if self._recipe.token_cap is not None:
            caps.append(f"{tokens} tokens of token_cap {self._recipe.token_cap}")
        return (
            f"the next call could exceed the cap: {', '.join(caps)} are used. To go on, raise the "
            "cap in the recipe and run the same command again: finished calls are not paid again"
        )
