"""Operators by name, and the list of them that a recipe holds."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from data_synthesis.operators.base import Operator as Operator
from data_synthesis.operators.routes import (
    OfferRoutes,
    RemoveGold,
    ShuffleRoutes,
    SpareRoutes,
    WordRoutes,
)
from data_synthesis.operators.talk import InjectIrrelevance, JoinRequests, MixScenarios
from data_synthesis.operators.text import AgentEnvelopes, HastyTyping, PadContext

AnyOperator = Annotated[
    MixScenarios
    | InjectIrrelevance
    | JoinRequests
    | HastyTyping
    | PadContext
    | AgentEnvelopes
    | RemoveGold
    | OfferRoutes
    | WordRoutes
    | ShuffleRoutes
    | SpareRoutes,
    Field(discriminator="op"),
]
