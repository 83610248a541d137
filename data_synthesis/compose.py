"""One record from its seed: a draft from a source, changed by the recipe's operators, written down.

Every record has a seed of its own, so records can be made in any order and by any number of
processes, with the same result.
"""

from __future__ import annotations

from random import Random

from data_synthesis.recipe import DataRecipe
from data_synthesis.render import render
from data_synthesis.stage import Stage
from routing.records import ConversationRecord

ATTEMPTS = 20


class Composer:
    """Draws conversation records by a recipe."""

    def __init__(self, recipe: DataRecipe, stage: Stage) -> None:
        self._recipe = recipe
        self._stage = stage

    def record(self, identifier: str) -> ConversationRecord:
        """The record of an id; the same id always gives the same record."""
        for attempt in range(ATTEMPTS):
            rng = Random(f"{self._recipe.seed}/{identifier}/{attempt}")
            draft = self._stage.draw(rng, self._recipe.max_user_turns)
            for operator in self._recipe.operators:
                draft = operator(rng, draft, self._stage)
            if draft.decided and len(draft.offered) > 1:
                return render(rng, draft, self._stage.cast, identifier)
        raise RuntimeError(f"no record for {identifier}: the sources offer too few routes together")
