"""From a teacher's recipe to talk on disk, going on where an earlier run stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data_synthesis.sources.stored import StoredRequest, write_stored
from data_synthesis.teacher.budget import money
from data_synthesis.teacher.drive import Driver, HttpDriver, Progress, Reporter, replay
from data_synthesis.teacher.errors import CapReached
from data_synthesis.teacher.ledger import Ledger
from data_synthesis.teacher.prompts import Prompts
from data_synthesis.teacher.recipe import TeacherRecipe, load_teacher_recipe
from data_synthesis.teacher.stages import EDGE_BATCH, Stages, Steps, Unit, Written
from data_synthesis.teacher.topics import SOURCE, Subject, Topic, subjects

LEDGER = "ledger.jsonl"


def run_teacher(
    recipe: Path, output: Path, progress: Progress, driver: Driver | None = None
) -> dict[str, Any]:
    """Write what a recipe asks for into `output`, in the format of `sources.stored`.

    Finished calls are read from the ledger in `output`; a rerun asks only for the rest. Returns
    the facts of source.json, and besides them `stopped`: why and how to go on, or None.

    Raises InvalidRecord for bad recipes, prompts, ledgers and a missing key, and TeacherError if
    the endpoint refuses or cannot be reached; what was paid for is in the ledger even then.
    """
    chosen = load_teacher_recipe(recipe)
    chosen.key()  # a missing key must not be found out after the first phase
    stages = Stages(chosen, Prompts(chosen.prompts))
    wanted = subjects(chosen)
    drive = driver or HttpDriver(chosen)
    stopped: str | None = None
    with Ledger(output / LEDGER) as ledger:
        try:
            units = [unit for _, unit in task_units(stages, wanted)]
            drive(units, ledger, Reporter(progress, chosen, "tasks", len(units)))
            units = talk_units(stages, known_topics(stages, wanted, ledger))
            drive(units, ledger, Reporter(progress, chosen, "talk", len(units)))
        except CapReached as reason:
            stopped = str(reason)
        facts = _write(stages, wanted, ledger, output)
    if stopped is None and not facts["complete"]:
        missing = facts["counts"]["unfinished"]
        stopped = f"{missing} units are unfinished, since calls failed; run again to go on"
    return {**facts, "stopped": stopped}


def task_units(stages: Stages, wanted: Sequence[Subject]) -> list[tuple[Subject, Unit]]:
    """The units that find out each subject's tasks."""
    return [(s, Unit(s.slug, partial(stages.tasks, s))) for s in wanted]


def known_topics(stages: Stages, wanted: Sequence[Subject], ledger: Ledger) -> list[Topic]:
    """Subjects whose tasks the ledger tells."""
    found = ((s, replay(unit, ledger)) for s, unit in task_units(stages, wanted))
    return [Topic(s, tuple(done.tasks)) for s, done in found if done is not None and done.tasks]


def talk_units(stages: Stages, topics: Sequence[Topic]) -> list[Unit]:
    """Dialogues and batches of hard cases, round-robin over the topics: a run that is stopped early
    has some of each."""
    recipe = stages.recipe
    units: list[Unit] = []
    steps: Callable[[], Steps[Written]]
    for number in range(recipe.dialogues_per_topic):
        for topic in topics:
            steps = partial(stages.dialogue, topic, number)
            units.append(Unit(f"{topic.subject.slug}/{number}", steps))
    for batch, start in enumerate(range(0, recipe.edge_cases_per_topic, EDGE_BATCH)):
        count = min(EDGE_BATCH, recipe.edge_cases_per_topic - start)
        for topic in topics:
            steps = partial(stages.edge_cases, topic, batch, count)
            units.append(Unit(f"{topic.subject.slug}/edge/{batch}", steps))
    return units


def _write(
    stages: Stages, wanted: Sequence[Subject], ledger: Ledger, output: Path
) -> dict[str, Any]:
    """Everything that the ledger completes: the same ledger gives the same bytes."""
    recipe = stages.recipe
    tally: Counter[str] = Counter()
    found = [replay(unit, ledger) for _, unit in task_units(stages, wanted)]
    unknown = sum(result is None for result in found)
    topics = known_topics(stages, wanted, ledger)
    talk = [replay(unit, ledger) for unit in talk_units(stages, topics)]
    done = [result for result in (*found, *talk) if result is not None]
    for result in done:
        tally.update(result.tally)
    per_topic = recipe.dialogues_per_topic + -(-recipe.edge_cases_per_topic // EDGE_BATCH)
    unfinished = unknown * (1 + per_topic) + sum(result is None for result in talk)
    dialogues = sorted((d for result in done for d in result.dialogues), key=lambda d: d.id)
    requests = _distinct(done, tally)
    counts = {
        "topics": len(topics),
        "tasks": sum(len(topic.tasks) for topic in topics),
        "dialogues": len(dialogues),
        "decisions": sum(turn.tasks is not None for d in dialogues for turn in d.turns),
        "requests": len(requests),
        "calls": len(ledger),
        "unfinished": unfinished,
    }
    facts = {
        "name": SOURCE,
        "licence": recipe.licence,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "model": recipe.model,
        "judge_model": recipe.judge,
        "prompts": stages.prompts.hashes,
        "complete": unfinished == 0,
        "counts": counts,
        "turned_down": {name: count for name, count in sorted(tally.items()) if count},
        "spend": _spend(recipe, ledger),
    }
    tasks = [task for topic in topics for task in topic.tasks]
    write_stored(output, facts, tasks, dialogues, requests)
    return facts


def _distinct(done: Sequence[Written], tally: Counter[str]) -> list[StoredRequest]:
    """Requests without repeated texts, sorted."""
    requests: dict[str, StoredRequest] = {}
    for result in done:
        for request in result.requests:
            tally["repeated_requests"] += request.text in requests
            requests.setdefault(request.text, request)
    return [requests[text] for text in sorted(requests)]


def _spend(recipe: TeacherRecipe, ledger: Ledger) -> dict[str, Any]:
    models: dict[str, Any] = {}
    total: float | None = 0.0
    for model, used in sorted(ledger.used.items()):
        paid = round(money(recipe, model, *used), 6) if recipe.prices_of(model) else None
        total = None if total is None or paid is None else round(total + paid, 6)
        models[model] = {"input_tokens": used[0], "output_tokens": used[1], "money": paid}
    return {"models": models, "money": total}
