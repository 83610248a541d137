"""From a draft to a conversation record: routes put into words, labels by their names."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from data_synthesis.casting import Cast
from data_synthesis.draft import Draft
from data_synthesis.wording import RouteStyle, draw_route, opaque_names
from routing.records import Alternatives, ConversationRecord, DecisionLabel, Wordings
from routing.tasks import Route


def render(rng: Random, draft: Draft, cast: Cast, identifier: str) -> ConversationRecord:
    """The record of a draft whose routes are settled."""
    tags = {name: value for name, value in draft.tags.items() if name != "style"}
    style = RouteStyle(**draft.tags.get("style", {}))
    taken: set[str] = set()
    routes = [draw_route(rng, cast.wording(unit), taken, style) for unit in draft.offered]
    if style.opaque:
        routes = opaque_names(rng, routes)
    names = {unit: route.name for unit, route in zip(draft.offered, routes, strict=True)}
    spare = [draw_route(rng, cast.wording(unit), taken, style) for unit in draft.spare]
    wordings = _further(rng, dict(zip(draft.spare, spare, strict=True)), cast, style)
    if not style.opaque:
        offered = dict(zip(draft.offered, routes, strict=True))
        wordings += _further(rng, offered, cast, style)
    return ConversationRecord(
        id=identifier,
        routes=routes,
        messages=[{"role": line.role, "content": line.text, **line.extra} for line in draft.lines],
        decisions=labels(draft, names, cast),
        alternatives=Alternatives(wordings=wordings, spare=spare) if draft.redrawn else None,
        tags={
            "source": draft.source,
            "licence": draft.licence,
            "scene": draft.kind,
            "k": len(routes),
            **tags,
        },
    )


def _further(
    rng: Random, routes: Mapping[str, Route], cast: Cast, style: RouteStyle
) -> list[Wordings]:
    """Other wordings of each route."""
    found: list[Wordings] = []
    for unit, route in routes.items():
        others = [draw_route(rng, cast.wording(unit), set(), style) for _ in range(style.further)]
        different = [other for other in others if other != route]
        if different:
            found.append(Wordings(of=route.name, routes=different))
    return found


def labels(draft: Draft, names: Mapping[str, str], cast: Cast) -> list[DecisionLabel]:
    """A decision for each line that has tasks: the offered units that cover them."""
    found: list[DecisionLabel] = []
    for index, line in enumerate(draft.lines):
        if line.tasks is None:
            continue
        expected = [
            name
            for task in line.tasks
            for unit, name in names.items()
            if task not in draft.missing and cast.covers(unit, task)
        ]
        found.append(
            DecisionLabel(
                message=index,
                expected=list(dict.fromkeys(expected)),
                tags={"kind": line.kind, "tasks": list(line.tasks)},
            )
        )
    return found
