"""From a team's logs to a folder that `sources.stored.read_stored` reads."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_synthesis.logs.collapse import Conversations, Kept
from data_synthesis.logs.detect import PHONE_REGIONS, DetectionIncomplete, Detector
from data_synthesis.logs.labelling import Abstain, GuessedLabel, Labeller
from data_synthesis.logs.reader import read_log
from data_synthesis.logs.scrub import Replacement, Scrubber
from data_synthesis.logs.teamtasks import SOURCE, TeamTasks, load_tasks
from data_synthesis.sources.stored import (
    StoredDialogue,
    StoredRequest,
    StoredTurn,
    write_rows,
    write_stored,
)
from routing.conversation import Conversation, Turn
from routing.errors import InvalidRecord
from routing.tasks import PresetTask

logger = logging.getLogger(__name__)

Progress = Callable[[Iterable[Kept], int], Iterable[Kept]]


def import_logs(
    files: Sequence[Path],
    tasks: Path,
    output: Path,
    *,
    licence: str = "internal",
    replacement: Replacement = "placeholders",
    seed: int = 0,
    pii_model: str | None = None,
    phone_regions: Sequence[str] = PHONE_REGIONS,
    skip_malformed: bool = False,
    drop_undecided: bool = False,
    pseudo_label: Labeller | None = None,
    min_confidence: float = 0.8,
    presets: Iterable[PresetTask] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make `output`, a folder that `read_stored` reads, from logs; return what source.json says.

    files           .jsonl(.gz) of chat requests; their lines are described in `reader`
    tasks           the team's tasks, or a router's file; see `teamtasks`
    licence         what the records made of this will carry
    replacement     "placeholders" (<EMAIL_1>) or "surrogates" (made-up values, drawn by `seed`)
    pii_model       name or folder of an installed spaCy pipeline that finds persons. Without one,
                    names are found only in introductions, greetings, signatures and labelled
                    fields: other names stay in the text
    phone_regions   countries (ISO codes) whose national phone numbers are looked for
    skip_malformed  count and skip lines that cannot be used, rather than raise
    drop_undecided  leave out conversations without a single label
    pseudo_label    asked about each unlabelled user turn, with scrubbed messages only; its guesses
                    of at least `min_confidence` become labels, listed in pseudo_labels.jsonl.gz
    presets         resolve the task slugs of a router's file
    progress        wraps the conversations, of which it is told the number, as they are scrubbed

    Labels on which repeated lines disagree leave their turn undecided. All is read before anything
    is written, and the folder appears whole: what stood there before, if it was such an import,
    stays until then. Beside the stored files nothing is kept of the logs, there or elsewhere.

    Raises InvalidRecord with file, line and reason, never quoting a line; DetectorUnavailable if
    Presidio or the spaCy pipeline is missing.
    """
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence must be from 0 to 1, not {min_confidence}")
    team = load_tasks(tasks, presets)
    _check_output(output)
    scrubber = Scrubber(Detector(pii_model, phone_regions), replacement, seed)
    facts: dict[str, Any] = {"name": SOURCE, "licence": licence, "source": "chat request logs"}
    facts["scrubbing"] = {
        "replacement": replacement,
        "pii_model": Path(pii_model).name if pii_model else None,
    }
    reading: Counter[str] = Counter(files=len(files))
    malformed: Counter[str] = Counter()
    kept = _read(files, team, malformed if skip_malformed else None, reading)
    facts["lines"] = {**reading, "malformed": dict(malformed)}
    label = _Guesser(team, pseudo_label, min_confidence)
    maker = _Maker(team, scrubber, label, drop_undecided)
    number = len(kept)
    walk = kept.drain() if progress is None else progress(kept.drain(), number)
    part = _part(output)
    shutil.rmtree(part, ignore_errors=True)
    try:
        # Requests, guesses and counts come about while the dialogues are written, which is first.
        write_stored(part, facts, team.stored, maker.dialogues(walk, facts), maker.requests)
        if pseudo_label is not None:
            write_rows(part / "pseudo_labels.jsonl.gz", label.guesses)
        _swap(part, output)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    logger.info("%d of %d conversations kept", facts["counts"]["conversations"], number)
    return facts


def _read(
    files: Sequence[Path], team: TeamTasks, skipped: Counter[str] | None, counts: Counter[str]
) -> Conversations:
    """What the files hold, and what of it: `skipped` and `counts` are added to."""
    conversations = Conversations()

    def skip(kind: str) -> None:
        assert skipped is not None
        skipped[kind] += 1

    counts.update(used=0, without_user_text=0)
    for path in files:
        for exchange in read_log(path, frozenset(team.keys), None if skipped is None else skip):
            turns = (Turn("user", said.text, 0) for said in exchange.turns if said.role == "user")
            if Conversation(tuple(turns)).has_user_text:
                counts["used"] += 1
                conversations.add(exchange)
            else:
                counts["without_user_text"] += 1
    counts["collapsed"] = conversations.collapsed
    counts["disagreements"] = conversations.disagreements
    return conversations


class _Guesser:
    """Labels of a labeller, as keys, and a list of them."""

    def __init__(self, team: TeamTasks, labeller: Labeller | None, least: float) -> None:
        self._team = team
        self._labeller = labeller
        self._least = least
        self.guesses: list[GuessedLabel] = []

    def __call__(self, id: str, turns: Sequence[StoredTurn], at: int) -> list[str] | None:
        """The guessed tasks of the user turn at index `at`; None if nothing is sure enough."""
        if self._labeller is None:
            return None
        messages = [{"role": turn.role, "content": turn.content} for turn in turns[: at + 1]]
        guess = self._labeller(messages, self._team.routes)
        if isinstance(guess, Abstain) or guess.confidence < self._least:
            return None
        if guess.route is not None and guess.route not in self._team.keys:
            raise ValueError("pseudo_label answered with a route that is not among the tasks")
        key = None if guess.route is None else self._team.keys[guess.route]
        self.guesses.append(GuessedLabel(id=id, turn=at, task=key, confidence=guess.confidence))
        return [] if key is None else [key]


class _Maker:
    """Stored dialogues of conversations, and the requests that open them."""

    def __init__(
        self, team: TeamTasks, scrubber: Scrubber, guess: _Guesser, drop_undecided: bool
    ) -> None:
        self._team = team
        self._scrubber = scrubber
        self._guess = guess
        self._drop_undecided = drop_undecided
        self.requests: list[StoredRequest] = []

    def dialogues(self, kept: Iterable[Kept], facts: dict[str, Any]) -> Iterator[StoredDialogue]:
        """Scrubbed dialogues; at the end `facts` gets the counts.

        Raises InvalidRecord if there is none.
        """
        counts: Counter[str] = Counter(
            conversations=0, turns=0, user_turns=0, labelled=0, pseudo_labelled=0, undecided=0
        )
        dropped: Counter[str] = Counter(undecided=0, not_scrubbed=0)
        scrubbed: Counter[str] = Counter()
        for number, conversation in enumerate(kept, 1):
            id = f"{number:06d}"  # not of the text: a hash of it would be a trace
            rows = conversation.labelled()
            try:
                texts, found = self._scrubber.scrub([turn.text for turn, _ in rows], id)
            except DetectionIncomplete:
                dropped["not_scrubbed"] += 1
                continue
            turns: list[StoredTurn] = []
            guesses = len(self._guess.guesses)
            for (turn, names), text in zip(rows, texts, strict=True):
                tasks = None if names is None else [self._team.keys[name] for name in names]
                turns.append(StoredTurn(role=turn.role, content=text, tasks=tasks))
                if turn.role == "user" and tasks is None:
                    turns[-1] = StoredTurn(
                        role="user", content=text, tasks=self._guess(id, turns, len(turns) - 1)
                    )
            guesses = len(self._guess.guesses) - guesses
            users = [turn for turn in turns if turn.role == "user"]
            decided = sum(turn.tasks is not None for turn in users)
            if self._drop_undecided and not decided:
                dropped["undecided"] += 1
                continue
            scrubbed.update(found)
            counts.update(
                conversations=1,
                turns=len(turns),
                user_turns=len(users),
                labelled=decided - guesses,
                pseudo_labelled=guesses,
                undecided=len(users) - decided,
            )
            self._open(users[0])
            yield StoredDialogue(id=id, turns=turns)
        if not counts["conversations"]:
            raise InvalidRecord(f"no conversation is left to import: dropped {dict(dropped)}")
        facts["counts"] = {
            **counts,
            "requests": len(self.requests),
            "dropped": dict(dropped),
            "scrubbed": dict(sorted(scrubbed.items())),
        }

    def _open(self, first: StoredTurn) -> None:
        """Keep the message that opened a conversation as a request that stands by itself."""
        alone = Conversation((Turn("user", first.content, 0),))
        if first.tasks is not None and alone.has_user_text:
            self.requests.append(StoredRequest(text=first.content, tasks=first.tasks))


def _part(output: Path) -> Path:
    return output.with_name(f".{output.name}.part")


def _check_output(output: Path) -> None:
    """Refuse a folder that is no earlier import: it will be replaced."""
    if not output.exists():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    try:
        name = json.loads((output / "source.json").read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if name != SOURCE:
        raise InvalidRecord(f"{output}: is not an import of logs, and will not be overwritten")


def _swap(part: Path, output: Path) -> None:
    """Put the finished folder in its place; for a moment between the renames there is none."""
    old = output.with_name(f".{output.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.replace(old)
    part.replace(output)
    shutil.rmtree(old, ignore_errors=True)
