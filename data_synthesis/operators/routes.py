"""Operators on what is offered: missing routes, distractors, how broad routes are, their order."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_synthesis.casting import GRAINS
from data_synthesis.draft import Draft
from data_synthesis.operators.base import Operator, Share
from data_synthesis.stage import Stage

Length = Literal["any", "short", "plain", "long"]
Grain = Literal["task", "domain", "family", "area", "mixed"]


class RouteCount(BaseModel):
    """Route counts are drawn uniformly from `low` to `high`; bands by weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: Annotated[int, Field(ge=2, le=64)]
    high: Annotated[int, Field(le=64)]
    weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high < self.low:
            raise ValueError("high must not be below low")
        return self


class RemoveGold(Operator):
    """A task spoken of loses its route: its turns are "none". What borders on it goes with it."""

    op: Literal["remove_gold"]

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        present = [key for key in draft.tasks if key not in draft.missing]
        if not present:
            return draft
        removed = {rng.choice(present)}
        cast = stage.cast
        if draft.missing_groups:
            groups = {cast.tasks[key].group for key in removed}
            removed |= {key for key in present if cast.tasks[key].group in groups}
        waiting = list(removed)
        while waiting:
            key = waiting.pop()
            close = {k for k in present if k not in removed and not cast.foreign(k, key)}
            removed |= close
            waiting += sorted(close)
        return replace(draft, missing=draft.missing | removed)


class OfferRoutes(Operator):
    """The routes: the right ones, as broad as the grain says, and distractors near and far."""

    op: Literal["offer_routes"]
    counts: Annotated[list[RouteCount], Field(min_length=1)]
    near_share: Share = 0.5
    """Probability that a distractor is one that borders on a task spoken of, or is of its group."""
    foreign_share: Share = 0.15
    """Conversations whose far distractors come from every source, not from their own."""
    grains: dict[Grain, Annotated[float, Field(ge=0)]] = Field(default={"task": 1.0})
    """How broad the routes are, by weight; "mixed" draws it for each route."""

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        (band,) = rng.choices(self.counts, [band.weight for band in self.counts])
        wanted = rng.randint(band.low, band.high)
        (grain,) = rng.choices(list(self.grains), list(self.grains.values()))
        needed = [key for key in draft.tasks if key not in draft.missing]
        units = self._units(rng, needed, draft, stage, grain)
        if units is None:
            grain, units = "task", list(dict.fromkeys(needed))
        offered = self._extend(rng, units, max(wanted, len(units) + 1), draft, stage, grain)
        if not offered:
            offered = self._extend(rng, units, wanted, draft, stage, "mixed")
        return replace(draft, offered=tuple(offered)).tagged(grain=grain)

    def _units(
        self, rng: Random, needed: list[str], draft: Draft, stage: Stage, grain: str
    ) -> list[str] | None:
        """One unit for each needed task, each task covered once; None where that cannot be."""
        cast = stage.cast
        chosen: list[str] = []
        for key in needed:
            if any(cast.covers(unit, key) for unit in chosen):
                continue
            level = rng.choice(GRAINS) if grain == "mixed" else grain
            taken = [k for k in needed if any(cast.covers(unit, k) for unit in chosen)]
            levels = [level, "task"] if grain == "mixed" else [level]
            pool = [
                unit
                for unit in (u for name in levels for u in cast.covering(key, name))
                if not any(cast.covers(unit, k) for k in taken)
                and all(cast.foreign(unit, k) for k in draft.missing)
                # The task itself is what was asked for; a broader route would take idle talk too.
                and (unit == key or not cast.in_areas(unit, draft.barred))
            ]
            if not pool:
                return None
            chosen.append(rng.choice(pool))
        return chosen

    def _extend(
        self, rng: Random, units: list[str], count: int, draft: Draft, stage: Stage, grain: str
    ) -> list[str]:
        cast = stage.cast
        needed = [key for key in draft.tasks if key not in draft.missing]
        rows = cast.allowed(needed, draft.missing, draft.barred)
        if draft.missing_groups and draft.missing:
            rows &= ~cast.of_groups(draft.missing)
        if grain != "mixed":
            rows &= cast.of_grain(grain)
        anchors = needed or sorted(draft.missing)
        if anchors and rng.random() >= self.foreign_share:
            rows &= cast.of_source(anchors[0])
        chosen = list(units)
        for unit in units:
            cast.strike(rows, unit)
        near = cast.near(anchors) if anchors else rows
        while len(chosen) < count:
            found = cast.pick(rng, rows & near) if rng.random() < self.near_share else None
            found = found or cast.pick(rng, rows)
            if found is None:
                break
            chosen.append(found)
            cast.strike(rows, found)
        return chosen


class SpareRoutes(Operator):
    """What training may draw anew in each epoch: other distractors, other wordings of routes.

    Spare units are of the grains that are offered, foreign or bordering as the distractors are.
    """

    op: Literal["spare_routes"]
    count: Annotated[int, Field(ge=0, le=32)] = 6
    wordings: Annotated[int, Field(ge=0, le=8)] = 2

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        cast = stage.cast
        needed = [key for key in draft.tasks if key not in draft.missing]
        rows = cast.allowed(needed, draft.missing, draft.barred)
        if draft.missing_groups and draft.missing:
            rows &= ~cast.of_groups(draft.missing)
        of_grains = cast.of_grain(cast.grain(draft.offered[0])).copy()
        for unit in draft.offered:
            of_grains |= cast.of_grain(cast.grain(unit))
        rows &= of_grains
        near = cast.near(needed or sorted(draft.missing)) if draft.tasks else rows
        for unit in draft.offered:
            cast.strike(rows, unit)
        chosen: list[str] = []
        while len(chosen) < self.count:
            found = cast.pick(rng, rows & near) if rng.random() < 0.5 else None
            found = found or cast.pick(rng, rows)
            if found is None:
                break
            chosen.append(found)
            cast.strike(rows, found)
        style = {**draft.tags.get("style", {}), "further": self.wordings}
        return replace(draft, redrawn=True, spare=tuple(chosen)).tagged(style=style)


class ShuffleRoutes(Operator):
    """Any order of routes, so that the right one stands on each place equally often."""

    op: Literal["shuffle_routes"]

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        return replace(draft, offered=tuple(rng.sample(draft.offered, len(draft.offered))))


class WordRoutes(Operator):
    """How the owner words routes: one naming style, short or long descriptions, empty names.

    Names and descriptions themselves are drawn among each task's paraphrases in any case.
    """

    op: Literal["word_routes"]
    one_naming_share: Share = 0.6
    """Owners who name all their routes in one style."""
    lengths: dict[Length, Annotated[float, Field(ge=0)]] = Field(
        default={"any": 5.0, "short": 1.5, "plain": 2.5, "long": 1.0}
    )
    """Length of descriptions, by weight."""
    opaque_share: Share = 0.05
    """Owners whose names mean nothing."""

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        (length,) = rng.choices(list(self.lengths), list(self.lengths.values()))
        style: dict[str, str | bool] = {
            "length": length,
            "opaque": rng.random() < self.opaque_share,
        }
        naming = rng.choices(
            ("snake", "kebab", "spaced", "title", "sentence", "camel"), (45, 15, 10, 15, 9, 6)
        )[0]
        if rng.random() < self.one_naming_share:
            style["naming"] = naming
        return draft.tagged(style=style)
