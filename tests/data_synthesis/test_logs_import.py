"""From logs to stored talk: labels arrive, nothing personal does, and nothing is half-written."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import pytest
from logs_files import dialogues, envelope, request, turns, write_log, write_tasks

from data_synthesis.logs import importing
from data_synthesis.logs.importing import import_logs
from data_synthesis.logs.labelling import Abstain, Guess
from data_synthesis.sources.stored import read_stored
from routing.errors import InvalidRecord
from routing.tasks import Route

# Not imported to find out: every process that collects would wait for spaCy.
pytestmark = pytest.mark.skipif(
    find_spec("presidio_analyzer") is None, reason="Presidio is not installed (extra `logs`)"
)

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhk\nCANARY==\n-----END PRIVATE KEY-----"
CANARIES = {
    "EMAIL": "canary.bird@aviary.co.uk",
    "PHONE": "+44 20 7946 0321",
    "CARD": "5555 5555 5555 4444",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "IP_ADDRESS": "10.77.3.12",
    "NATIONAL_ID": "536-90-4399",
    "CREDENTIALS": "tweety:canaryseed99",
    "WALLET": "0x52908400098527886E0F7030069857D2E4169EE7",
    "PERSON": "Cornelia Kanarienvogel",
    "PASSWORD": "Cage0pen!2",
    "BIRTH_DATE": "1985-04-12",
    "USERNAME": "ckanari",
    "ADDRESS": "17 Feather Lane",
}
KEYS = (
    "sk-proj-CANARYabcdef1234567890",
    "ghp_CANARYghijklmnopqrstuvwxyz0123456789",
    "AKIACANARYABCDEFGHIJ",
    "eyJhbGciOiJDQU5BUlkifQ.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlY2FuYXJ5",
    "canarytoken0123456789",
)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    return write_tasks(tmp_path / "tasks.yaml")


def test_labelled_logs_become_stored_talk(tmp_path: Path, tasks: Path) -> None:
    logs = [
        write_log(
            tmp_path / "a.jsonl.gz",
            envelope("Refund me.", answer="Sure.", route="billing"),
            {"messages": [{"role": "system", "content": "x"}]},
        ),
        write_log(
            tmp_path / "b.jsonl",
            request(
                "Refund me.", "Sure.", "And log me in, and pay.", routes=["account", "billing"]
            ),
            request("What is the capital of Peru?", route=None),
            request("Hm?"),
        ),
    ]
    facts = import_logs(logs, tasks, tmp_path / "out", licence="ours")
    corpus = read_stored(tmp_path / "out")
    assert (corpus.name, corpus.licence) == ("logs", "ours")
    assert [[turn.labels for turn in d.turns if turn.role == "user"] for d in corpus.dialogues] == [
        [("logs/billing",), ("logs/account", "logs/billing")],
        [()],
        [()],
    ]
    assert [d.turns[0].decided for d in corpus.dialogues] == [True, True, False]
    assert [(r.text, r.tasks) for r in corpus.requests] == [
        ("Refund me.", ("logs/billing",)),
        ("What is the capital of Peru?", ()),
    ]
    assert facts == json.loads((tmp_path / "out" / "source.json").read_text())
    assert facts["lines"] == {
        "files": 2,
        "used": 4,
        "without_user_text": 1,
        "collapsed": 1,
        "disagreements": 0,
        "malformed": {},
    }
    assert facts["counts"] == {
        "conversations": 3,
        "turns": 5,
        "user_turns": 4,
        "labelled": 3,
        "pseudo_labelled": 0,
        "undecided": 1,
        "requests": 2,
        "dropped": {"undecided": 0, "not_scrubbed": 0},
        "scrubbed": {},
    }


def test_conversations_without_labels_can_be_dropped(tmp_path: Path, tasks: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", request("Pay.", route="billing"), request("Hm?"))
    facts = import_logs([log], tasks, tmp_path / "out", drop_undecided=True)
    assert [turn[1] for turn in turns(tmp_path / "out")] == ["Pay."]
    assert facts["counts"]["dropped"]["undecided"] == 1
    nothing = write_log(tmp_path / "nothing.jsonl", request("Hm?"))
    with pytest.raises(InvalidRecord, match="no conversation is left"):
        import_logs([nothing], tasks, tmp_path / "none", drop_undecided=True)
    assert not (tmp_path / "none").exists()


def test_a_labeller_sees_scrubbed_text_and_only_sure_guesses_count(
    tmp_path: Path, tasks: Path
) -> None:
    seen: list[list[str]] = []

    def labeller(messages: Sequence[dict[str, str]], routes: Sequence[Route]) -> Guess | Abstain:
        assert [route.name for route in routes] == ["billing", "account", "outages"]
        seen.append([message["content"] for message in messages])
        last = messages[-1]["content"]
        if "pay" in last:
            return Guess("billing", 0.9)
        return Guess(None, 0.95) if "weather" in last else Guess("outages", 0.5)

    log = write_log(
        tmp_path / "log.jsonl",
        request("I pay, a@b.org.", "Ok.", "Known.", "Ok.", "The weather?", "Ok.", "It is down.",
                labels=[{"message": 2, "route": "account"}]),
    )  # fmt: skip
    out = tmp_path / "out"
    facts = import_logs([log], tasks, out, pseudo_label=labeller, min_confidence=0.8)
    assert [row[2] for row in turns(out) if row[0] == "user"] == [
        ["logs/billing"],
        ["logs/account"],
        [],
        None,
    ]
    assert [len(messages) for messages in seen] == [1, 5, 7]
    assert seen[0] == ["I pay, <EMAIL_1>."]
    with gzip.open(out / "pseudo_labels.jsonl.gz", "rt") as file:
        assert [json.loads(line) for line in file] == [
            {"id": "000001", "turn": 0, "task": "logs/billing", "confidence": 0.9},
            {"id": "000001", "turn": 4, "task": None, "confidence": 0.95},
        ]
    assert facts["counts"]["labelled"] == 1
    assert facts["counts"]["pseudo_labelled"] == 2
    assert facts["counts"]["undecided"] == 1


def test_a_labeller_that_invents_a_route_or_fails_leaves_nothing(
    tmp_path: Path, tasks: Path
) -> None:
    log = write_log(tmp_path / "log.jsonl", request("Pay."))
    with pytest.raises(ValueError, match="not among the tasks"):
        import_logs([log], tasks, tmp_path / "out", pseudo_label=lambda m, r: Guess("zoo", 1.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "tasks.yaml"]
    import_logs([log], tasks, tmp_path / "out", pseudo_label=lambda m, r: Abstain())
    assert turns(tmp_path / "out") == [("user", "Pay.", None)]


def test_malformed_lines_stop_the_import_or_are_counted(tmp_path: Path, tasks: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", request("Pay."), "{", request("x", route="zebra"))
    with pytest.raises(InvalidRecord, match=r"log\.jsonl:2: not JSON"):
        import_logs([log], tasks, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    facts = import_logs([log], tasks, tmp_path / "out", skip_malformed=True)
    assert facts["lines"]["malformed"] == {"not JSON": 1, "unknown label": 1}
    assert len(dialogues(tmp_path / "out")) == 1


def test_the_same_logs_give_the_same_bytes(tmp_path: Path, tasks: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", *[request(f"a{n}@b.org pays.") for n in range(20)])
    for name in ("one", "two"):
        import_logs([log], tasks, tmp_path / name, replacement="surrogates", seed=4)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_only_an_earlier_import_is_replaced(tmp_path: Path, tasks: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", request("Pay."))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(InvalidRecord, match="will not be overwritten"):
        import_logs([log], tasks, foreign)
    assert (foreign / "thesis.txt").read_text() == "years of work"
    import_logs([log], tasks, tmp_path / "out")
    import_logs([write_log(log, request("Log in."))], tasks, tmp_path / "out")
    assert turns(tmp_path / "out") == [("user", "Log in.", None)]


def test_an_import_that_is_killed_leaves_what_was_there(tmp_path: Path, tasks: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", request("Pay."))
    out = tmp_path / "out"
    import_logs([log], tasks, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    many = write_log(
        tmp_path / "many.jsonl", *[request(f"Pay {n}, secret@b.org") for n in range(50)]
    )
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from data_synthesis.logs.importing import import_logs\n"
        "def stop(messages, routes):\n"
        "    if 'Pay 40' in messages[-1]['content']: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    from data_synthesis.logs.labelling import Abstain; return Abstain()\n"
        "log, tasks, out = map(Path, sys.argv[1:])\n"
        "import_logs([log], tasks, out, pseudo_label=stop)\n"
    )
    command = [sys.executable, "-c", code, str(many), str(tasks), str(out)]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(command, cwd=root, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    left = [path for path in tmp_path.rglob("*.part*") if path.is_file()]
    assert left
    assert not [path for path in left if b"secret@" in _read(path)]
    import_logs([many], tasks, out)
    assert len(dialogues(out)) == 50
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_no_canary_gets_out(
    tmp_path: Path, tasks: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    c = CANARIES
    arguments = json.dumps({"customer_name": c["PERSON"], "email": c["EMAIL"], "token": KEYS[4]})
    call = {"type": "function", "function": {"name": "find", "arguments": arguments}}
    line = {
        "request": {
            "user": c["EMAIL"],
            "metadata": {"ip": c["IP_ADDRESS"]},
            "messages": [
                {"role": "system", "content": f"You help {c['EMAIL']}. Key {KEYS[0]}. {PEM}"},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "text",
                            "text": f"My name is {c['PERSON']}, born on {c['BIRTH_DATE']}, of "
                            f"{c['ADDRESS']}. Call {c['PHONE']}. Card {c['CARD']}, IBAN "
                            f"{c['IBAN']}, SSN {c['NATIONAL_ID']}, wallet {c['WALLET']}. My "
                            f"password is {c['PASSWORD']} for postgres://{c['CREDENTIALS']}@db/x",
                        }
                    ],
                },
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": f"/home/{c['USERNAME']}/.env at {c['IP_ADDRESS']}"},
                {
                    "role": "user",
                    "content": f"{c['PASSWORD']} fails, {KEYS[1]} {KEYS[2]} {KEYS[3]}",
                },
            ],
        },
        "response": {
            "choices": [{"message": {"role": "assistant", "content": f"Hello {c['PERSON']}!"}}]
        },
        "route": "account",
    }
    log = write_log(tmp_path / "log.jsonl", line)
    errors: list[str] = []
    facts: list[dict[str, Any]] = []
    for replacement in ("placeholders", "surrogates"):
        out = tmp_path / replacement
        facts.append(import_logs([log], tasks, out, replacement=replacement))  # type: ignore[arg-type]
    text = json.dumps(line)
    inner = json.dumps(line["request"])
    everything = " ".join([*c.values(), *KEYS, PEM])
    for bad in (
        text[:-1],
        text.replace('"account"', json.dumps(everything)),
        text.replace('"role": "tool"', f'"role": {json.dumps(everything)}'),
        inner.replace('"messages"', f'"{c["EMAIL"]}"'),
        text.encode().replace(b"Hello", b"\xff\xfe"),
        json.dumps(everything),
        everything,
        json.dumps({"messages": everything}),
        json.dumps({"messages": [{"role": "user", "content": [{"type": everything}]}, 1]}),
        json.dumps({"request": {"messages": [{"role": "user", "content": "x"}]}, "labels": [
            {"message": everything, "route": None}]}),
    ):  # fmt: skip
        broken = write_log(tmp_path / "broken.jsonl", bad)
        with pytest.raises(InvalidRecord) as caught:
            import_logs([broken], tasks, tmp_path / "broken")
        seen: BaseException | None = caught.value
        while seen is not None:
            errors += [str(seen), repr(vars(seen))]
            seen = seen.__cause__ or seen.__context__

    written = {path: _read(path) for name in ("placeholders", "surrogates")
               for path in (tmp_path / name).rglob("*")}  # fmt: skip
    assert len(written) == 8
    printed = capfd.readouterr()
    said = "\n".join([*errors, caplog.text, printed.out, printed.err, repr(facts)]).encode()
    for canary in [*c.values(), *KEYS, "Kanarienvogel", "Cornelia", "CANARY", "canaryseed99"]:
        for form in (canary, canary.replace(" ", ""), json.dumps(canary)[1:-1]):
            assert not [path for path, data in written.items() if form.encode() in data], canary
            assert form.encode() not in said, canary
    assert set(c) | {"SECRET"} == set(facts[0]["counts"]["scrubbed"])
    assert turns(tmp_path / "placeholders")[-1][1] == "Hello <PERSON_1>!"


def test_a_conversation_that_takes_too_long_to_scrub_is_dropped(
    tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import presidio_analyzer.pattern_recognizer as presidio

    log = write_log(tmp_path / "log.jsonl", request("Pay."))
    monkeypatch.setattr(presidio, "REGEX_TIMEOUT_SECONDS", 0)
    with pytest.raises(InvalidRecord, match=r"no conversation is left .*'not_scrubbed': 1"):
        import_logs([log], tasks, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_presidio_the_message_names_the_extra(tmp_path: Path, tasks: Path) -> None:
    code = (
        "import sys; sys.modules['presidio_analyzer'] = None; from pathlib import Path\n"
        "from data_synthesis.logs.importing import import_logs\n"
        "import_logs([], Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(tasks), str(tmp_path / "out")]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert "DetectorUnavailable" in ended.stderr
    assert "pip install 'pointsman[logs]'" in ended.stderr


def test_conversations_can_be_drawn_from_the_folder(tmp_path: Path, tasks: Path) -> None:
    corpus_source = pytest.importorskip("data_synthesis.sources.corpus")
    log = write_log(tmp_path / "log.jsonl", request("Pay.", "Ok.", "Log in.", route="account"))
    import_logs([log], tasks, tmp_path / "out")
    source = corpus_source.CorpusSource(read_stored(tmp_path / "out"), None)
    draft = source.draw(Random(1), 8)
    assert [(line.role, line.text, line.tasks) for line in draft.lines] == [
        ("user", "Pay.", None),
        ("assistant", "Ok.", None),
        ("user", "Log in.", ("logs/account",)),
    ]


def test_progress_wraps_all_conversations(tmp_path: Path, tasks: Path) -> None:
    told: list[int] = []

    def progress(items: Any, number: int) -> Any:
        told.append(number)
        return items

    log = write_log(tmp_path / "log.jsonl", request("Pay."), request("Log in."))
    import_logs([log], tasks, tmp_path / "out", progress=progress)
    assert told == [2]
    assert importing.SOURCE == "logs"


def _read(path: Path) -> bytes:
    """A file's bytes, unpacked as far as they go."""
    data = path.read_bytes()
    if ".gz" not in path.name or not data:
        return data
    import zlib

    return zlib.decompressobj(wbits=31).decompress(data) + os.fsencode(path.name)
