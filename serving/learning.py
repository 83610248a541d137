"""What ranking learns from answers: how long they took and how long they were."""

from __future__ import annotations

from serving.accounts import Accounts, Failed, Settled
from serving.latency import Latencies
from serving.ranking import Ranking

_SLOW = frozenset({"timeout", "connection", "cut", "invalid", "error"})
"""Failures that say something of the model's speed: a request that met them lost time."""


class Learning:
    """Listens to the accounts of one server."""

    def __init__(self, ranking: Ranking, latencies: Latencies) -> None:
        self._ranking = ranking
        self._latencies = latencies

    def listen(self, accounts: Accounts) -> None:
        """Hear of every answer and of every failed attempt from now on."""
        accounts.listeners.append(self.answered)
        accounts.failures.append(self.failed)

    def answered(self, settled: Settled) -> None:
        """An answer has ended."""
        model, prompt = settled.target.name, settled.need.prompt_tokens
        self._latencies.observe(
            model,
            streamed=settled.streamed,
            seconds=settled.first_byte_s,
            prompt_tokens=prompt,
        )
        if settled.usage is None or settled.broken:
            return
        tokens = settled.usage.output_tokens
        self._latencies.observe_speed(
            model,
            streamed=settled.streamed,
            tokens=tokens,
            seconds=settled.seconds if settled.streamed else settled.first_byte_s,
            prompt_tokens=prompt,
        )
        self._ranking.observe_output(model, settled.route, tokens)

    def failed(self, failed: Failed) -> None:
        """An attempt has failed."""
        if failed.label in _SLOW or failed.label.startswith("5"):
            self._latencies.observe_failure(
                failed.target.name, streamed=failed.streamed, seconds=failed.seconds
            )
