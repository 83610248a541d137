"""Operators change drafts. Each is its own configuration: a typed item of a recipe's list.

An operator gets a seeded generator, a draft and the stage, and returns a draft; it changes nothing
else, so any order of operators is a valid pipeline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from random import Random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from data_synthesis.draft import Draft
from data_synthesis.stage import Stage

Share = Annotated[float, Field(ge=0, le=1)]


class Operator(BaseModel, ABC):
    """A change that is applied to a share of the drafts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    op: str
    share: Share = 1.0
    """Drafts that are changed."""

    def __call__(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        # The seed moves on whether or not the draft is changed, so shares do not shift the rest.
        seed = rng.getrandbits(64)
        return draft if rng.random() >= self.share else self.apply(Random(seed), draft, stage)

    @abstractmethod
    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        """The changed draft, or the same where the change has no place."""
