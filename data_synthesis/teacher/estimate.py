"""What a recipe will take, before the first call: an estimate, and the most it can come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_synthesis.sources.stored import StoredTask
from data_synthesis.teacher.budget import money
from data_synthesis.teacher.prompts import Prompts
from data_synthesis.teacher.recipe import TeacherRecipe, load_teacher_recipe
from data_synthesis.teacher.stages import EDGE_BATCH, Stages, Steps, Written
from data_synthesis.teacher.topics import Subject, Topic, subjects

CHARACTERS_PER_TOKEN = 4
TOKENS_OF_EXCHANGE = 120
"""A user turn and an assistant's, with the JSON around them."""
TOKENS_OF_VERDICT = 45
TOKENS_OF_EDGE_CASE = 100
TOKENS_OF_POLICY = 45
TOKENS_OF_REFINED_POLICY = 170


def estimate(recipe: Path) -> dict[str, Any]:
    """Calls, tokens and money if nothing has to be asked again, and `most_calls` if all has.

    `money` is None where a price is unknown. Raises as `run_teacher` does for a bad recipe.
    """
    chosen = load_teacher_recipe(recipe)
    stages = Stages(chosen, Prompts(chosen.prompts))
    total = _Total(chosen)
    users = (chosen.turns.low + chosen.turns.high) / 2
    for subject in subjects(chosen):
        if subject.tasks is None:
            count = chosen.policies_per_topic
            draft = TOKENS_OF_POLICY * count
            prompt = _first_prompt(stages.tasks(subject))
            total.add(chosen.model, 1, prompt, draft)
            total.add(chosen.model, 1, prompt + draft, TOKENS_OF_REFINED_POLICY * count)
        topic = Topic(subject, subject.tasks or _placeholders(subject, chosen))
        judging = _tokens(
            stages.prompts.render(
                "judge",
                conversations="",
                numbers="",
                topic=subject.text,
                policies=topic.policies,
                elsewhere=subject.elsewhere,
            )
        )
        if chosen.dialogues_per_topic:
            number = chosen.dialogues_per_topic
            size = int(users * TOKENS_OF_EXCHANGE)
            total.add(chosen.model, number, _first_prompt(stages.dialogue(topic, 0)), size)
            total.add(chosen.judge, number, judging + size, int(users * TOKENS_OF_VERDICT))
        if chosen.edge_cases_per_topic:
            number = -(-chosen.edge_cases_per_topic // EDGE_BATCH)
            count = min(EDGE_BATCH, chosen.edge_cases_per_topic)
            size = count * TOKENS_OF_EDGE_CASE
            prompt = _first_prompt(stages.edge_cases(topic, 0, count))
            total.add(chosen.model, number, prompt, size)
            # A third of the cases carry an earlier user turn, which is judged too.
            total.add(chosen.judge, number, judging + size, count * TOKENS_OF_VERDICT * 4 // 3)
    return total.facts()


class _Total:
    """Sums up calls by model."""

    def __init__(self, recipe: TeacherRecipe) -> None:
        self._recipe = recipe
        self._calls = 0
        self._used: dict[str, list[int]] = {}

    def add(self, model: str, calls: int, input_tokens: int, output_tokens: int) -> None:
        """Calls with so many tokens each."""
        self._calls += calls
        used = self._used.setdefault(model, [0, 0])
        used[0] += calls * input_tokens
        used[1] += calls * min(output_tokens, self._recipe.max_tokens)

    def facts(self) -> dict[str, Any]:
        recipe, used = self._recipe, self._used
        priced = all(recipe.prices_of(model) for model in used)
        paid = sum(money(recipe, model, *tokens) for model, tokens in used.items())
        # Every answer unreadable until the last attempt, and every dialogue rejected as often.
        rewritten = recipe.attempts**2
        return {
            "calls": self._calls,
            "most_calls": self._calls * rewritten,
            "input_tokens": sum(tokens[0] for tokens in used.values()),
            "output_tokens": sum(tokens[1] for tokens in used.values()),
            "money": round(paid, 4) if priced else None,
            "spend_cap": recipe.spend_cap,
            "token_cap": recipe.token_cap,
        }


def _placeholders(subject: Subject, recipe: TeacherRecipe) -> tuple[StoredTask, ...]:
    """Tasks of about the length that the teacher will write."""
    return tuple(
        StoredTask(
            key=f"{subject.slug}/{number}",
            group=subject.slug,
            names=[f"name_of_a_task_{number}"],
            descriptions=["x" * CHARACTERS_PER_TOKEN * TOKENS_OF_POLICY],
        )
        for number in range(recipe.policies_per_topic)
    )


def _first_prompt(steps: Steps[Written]) -> int:
    """Tokens of the first prompt, with the schema that goes with it."""
    call = next(steps)
    steps.close()
    return _tokens(call.messages[-1][1] + call.schema)


def _tokens(text: str) -> int:
    return len(text) // CHARACTERS_PER_TOKEN
