"""Operators on how it is said: hasty typing, long pastes, what coding agents wrap around words."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from data_synthesis.draft import Draft, Line
from data_synthesis.operators.base import Operator, Share
from data_synthesis.stage import Stage
from data_synthesis.typing_noise import roughen

_PASTED = ("CODE", "DOCUMENT", "LOG", "EMAIL", "TABLE", "TRANSCRIPT", "CONFIG", "JSON")


class HastyTyping(Operator):
    """User lines as typed in a hurry, or by someone who writes English as a second language."""

    op: Literal["hasty_typing"]
    line_share: Share = 0.12
    """User lines that are roughened."""

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        return draft.with_lines(
            replace(line, text=roughen(rng, line.text))
            if line.role == "user" and rng.random() < self.line_share
            else line
            for line in draft.lines
        )


class PadContext(Operator):
    """Long context: material pasted before a request, or a long answer before the next."""

    op: Literal["pad_context"]
    pieces: Annotated[int, Field(ge=1)] = 1
    """Pieces of material for each padded place, at most."""

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        lines = list(draft.lines)
        at = rng.choice([i for i, line in enumerate(lines) if line.role in ("user", "assistant")])
        kinds = [k for k in _PASTED if k in stage.library.attachments]
        material = "\n\n".join(
            rng.choice(stage.library.attachments[rng.choice(kinds)])
            for _ in range(rng.randint(1, self.pieces))
        )
        line = lines[at]
        if line.role == "user":
            # The request comes last, as people paste first and ask below.
            lines[at] = replace(line, text=f"{material}\n\n{line.text}", alone=False)
        else:
            lines[at] = replace(line, text=f"{line.text}\n\n{material}")
        return draft.with_lines(lines)


class AgentEnvelopes(Operator):
    """What coding agents send: system prompts, reminders around words, tool calls and results."""

    op: Literal["agent_envelopes"]

    def apply(self, rng: Random, draft: Draft, stage: Stage) -> Draft:
        lines: list[Line] = []
        if rng.random() < 0.6:
            lines.append(Line("system", stage.phrases.draw(rng, "system_prompts")))
        for number, line in enumerate(draft.lines):
            draw = rng.random()
            if line.role == "user" and draw < 0.35:
                parts = [_reminder(rng, stage), line.text]
                rng.shuffle(parts)
                line = replace(line, text="\n".join(parts), alone=False)
            lines.append(line)
            if line.role == "user" and number + 1 < len(draft.lines) and rng.random() < 0.4:
                lines += self._tools(rng, stage, len(lines))
            if line.role == "assistant" and rng.random() < 0.1:
                # An agent reports to its model in the user's name: nobody spoke.
                lines.append(Line("user", _reminder(rng, stage), kind="reminder"))
        return draft.with_lines(lines)

    def _tools(self, rng: Random, stage: Stage, at: int) -> list[Line]:
        found: list[Line] = []
        for number in range(rng.randint(1, 2)):
            name, arguments, result = rng.choice(stage.library.tool_results)
            call_id = f"call_{at}_{number}"
            call = {
                "id": call_id,
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            found.append(Line("assistant", "", kind="call", extra={"tool_calls": [call]}))
            found.append(Line("tool", result, kind="result", extra={"tool_call_id": call_id}))
        return found


def _reminder(rng: Random, stage: Stage) -> str:
    body = stage.phrases.draw(rng, "reminders").strip()
    return f"<system-reminder>\n{body}\n</system-reminder>"
