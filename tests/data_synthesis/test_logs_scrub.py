"""Personal data and secrets are found, and replaced alike throughout a conversation."""

from __future__ import annotations

import re
import string
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_synthesis.logs.detect import KINDS, Detector, DetectorUnavailable, Span, merged
from data_synthesis.logs.scrub import MARGIN, MAX_TEXT, Scrubber

# Not imported to find out: every process that collects would wait for spaCy.
pytestmark = pytest.mark.skipif(
    find_spec("presidio_analyzer") is None, reason="Presidio is not installed (extra `logs`)"
)
PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq9\nxyz/+==\n-----END RSA PRIVATE KEY-----"
)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
SCRUBBED = [
    ("Write to ada@lovelace.co.uk now.", "Write to <EMAIL_1> now."),
    ("at bob@corp.internal, please", "at <EMAIL_1>, please"),
    ("u=ada%40example.org&x=1", "<EMAIL_1>&x=1"),
    ("ada (at) example (dot) org", "<EMAIL_1>"),
    ("Call (415) 555-0142 today", "Call <PHONE_1> today"),
    ("Call +44 20 7946 0018 today", "Call <PHONE_1> today"),
    ("Call 020 7946 0018 today", "Call <PHONE_1> today"),
    ("Card 4111 1111 1111 1111 ok", "Card <CARD_1> ok"),
    ("IBAN GB82 WEST 1234 5698 7654 32.", "IBAN <IBAN_1>."),
    ("from 10.12.0.7 and 2001:db8::9", "from <IP_ADDRESS_1> and <IP_ADDRESS_2>"),
    ("mac 00:1A:2B:3C:4D:5E", "mac <MAC_ADDRESS_1>"),
    ("ssn 536-90-4399 it is", "ssn <NATIONAL_ID_1> it is"),
    ("to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "to <WALLET_1>"),
    ("postgres://bob:p@ss/w0rd@db.corp/x", "postgres://<CREDENTIALS_1>/x"),
    ("https://tok3n@git.corp.io/a.git", "https://<CREDENTIALS_1>/a.git"),
    ("key sk-proj-abcDEF1234567890abcdef", "key <SECRET_1>"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "<SECRET_1>"),
    ("id AKIAIOSFODNN7EXAMPLE", "id <SECRET_1>"),
    ("aws wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws <SECRET_1>"),
    (f"jwt {JWT}", "jwt <SECRET_1>"),
    (f"pem\n{PEM}\nend", "pem\n<SECRET_1>\nend"),
    (PEM[:60], "<SECRET_1>"),
    ("Authorization: Bearer abc123def456", "Authorization: Bearer <SECRET_1>"),
    ("Authorization: Basic Ym9iOnB3", "Authorization: Basic <SECRET_1>"),
    ('{"password": "correct horse"}', '{"password": "<PASSWORD_1>"}'),
    ("DB_PASSWORD=hunter2", "DB_PASSWORD=<PASSWORD_1>"),
    ("my password is swordfish", "my password is <PASSWORD_1>"),
    ("born on 12 April 1985 there", "born on <BIRTH_DATE_1> there"),
    ("at 221 Baker Street, London", "at <ADDRESS_1>, London"),
    ("open /home/jdoe/notes.txt", "open /home/<USERNAME_1>/notes.txt"),
    ("My name is Ada Lovelace.", "My name is <PERSON_1>."),
    ("my name is john smith", "my name is <PERSON_1>"),
    ("This is Grace Hopper speaking", "This is <PERSON_1> speaking"),
    ("Dear Mrs. O'Neill,", "Dear Mrs. <PERSON_1>,"),
    ("Dear Anna, no.", "Dear <PERSON_1>, no."),
    ("Bye.\nKind regards,\nPeter van Dijk", "Bye.\nKind regards,\n<PERSON_1>"),
    ("Thanks, Anna", "Thanks, <PERSON_1>"),
    ('{"customer_name": "Ada Lovelace"}', '{"customer_name": "<PERSON_1>"}'),
]
KEPT = [
    "Install react@18.2.0 and @types/node, then open http://127.0.0.1:8080/health.",
    "Hello World! Dear Sir or Madam, dear all, hi there,",
    "My password is wrong. My name is not shown. password: string; max_tokens: 4096",
    "A task-management-system-with-details of std::vector in commit 3f2a1b4.",
    "Set the timeout to 30000 and retry 12345 times between 2024-01-02 and 2024-02-03.",
    "This is Python code from /home/user/app and C:\\Users\\Public\\x.",
    "Thanks, please fix the tests. I'm not sure, and it's fine from here.",
]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture(scope="module")
def scrubber(detector: Detector) -> Scrubber:
    return Scrubber(detector)


@pytest.mark.parametrize(("text", "expected"), SCRUBBED)
def test_each_kind_is_replaced_and_the_sentence_stays(
    text: str, expected: str, scrubber: Scrubber
) -> None:
    [done], counts = scrubber.scrub([text], "1")
    assert done == expected
    assert sum(counts.values()) == len(re.findall(r"<[A-Z_]+_\d>", expected))


@pytest.mark.parametrize("text", KEPT)
def test_what_is_nobodys_stays(text: str, scrubber: Scrubber) -> None:
    assert scrubber.scrub([text], "1") == ([text], {})


def test_stand_ins_are_the_same_throughout_a_conversation(scrubber: Scrubber) -> None:
    done, counts = scrubber.scrub(
        [
            "My name is Ada Lovelace, a@b.org. password: hunter2",
            "Hello Ada! A@B.org is not c@d.org.",
            "hunter2 fails, says ADA; call +1 415 555 0142 or +1 (415) 555-0142.",
        ],
        "1",
    )
    assert done == [
        "My name is <PERSON_1>, <EMAIL_1>. password: <PASSWORD_1>",
        "Hello <PERSON_1>! <EMAIL_1> is not <EMAIL_2>.",
        "<PASSWORD_1> fails, says <PERSON_1>; call <PHONE_1> or <PHONE_1>.",
    ]
    assert counts == {"PERSON": 3, "EMAIL": 3, "PASSWORD": 2, "PHONE": 2}


def test_surrogates_are_repeatable_and_tell_nothing_of_the_value(detector: Detector) -> None:
    def scrub(text: str, seed: int, id: str) -> str:
        return Scrubber(detector, "surrogates", seed).scrub([text], id)[0][0]

    text = "Mail a@b.org, then c@d.org, then a@b.org."
    done = scrub(text, 1, "1")
    mails = re.findall(r"[\w.]+@example\.com", done)
    assert len(mails) == 3
    assert mails[0] == mails[2] != mails[1]
    assert scrub(text, 1, "1") == done
    assert scrub(text.replace("a@b.org", "x@y.org"), 1, "1") == done
    assert scrub(text, 2, "1") != done
    assert scrub(text, 1, "2") != done


def test_every_kind_has_surrogates_that_look_the_same_to_a_reader(detector: Detector) -> None:
    done, counts = Scrubber(detector, "surrogates").scrub([text for text, _ in SCRUBBED], "1")
    assert set(counts) == set(KINDS)
    assert not [text for text in done if "<" in text]


@pytest.mark.parametrize("at", [MAX_TEXT // 2 - 10, 100, MAX_TEXT + 5_000])
def test_long_texts_are_cut_and_leave_nothing_at_the_cut(at: int, scrubber: Scrubber) -> None:
    filler = "word " * (MAX_TEXT // 4)
    text = filler[:at] + f" {PEM} and ada@lovelace.org " + filler[at:]
    [done], _ = scrubber.scrub([text], "1")
    assert len(done) <= MAX_TEXT - 2 * MARGIN + 200
    assert "lovelace" not in done
    assert "MIIE" not in done
    assert "xyz/" not in done


def test_overlapping_spans_become_one_of_the_surest_kind() -> None:
    spans = [Span(5, 9, "PERSON"), Span(0, 6, "PHONE"), Span(8, 12, "EMAIL"), Span(12, 14, "CARD")]
    assert merged(spans) == (Span(0, 12, "EMAIL"), Span(12, 14, "CARD"))


def test_persons_are_found_by_a_spacy_pipeline(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}])
    pipeline.to_disk(tmp_path / "model")
    text = "Yesterday Ada Lovelace complained again."
    [with_model], _ = Scrubber(Detector(str(tmp_path / "model"))).scrub([text], "1")
    assert with_model == "Yesterday <PERSON_1> complained again."
    with pytest.raises(DetectorUnavailable, match="spacy download no_such_model"):
        Detector("no_such_model")


_AROUND = st.text(st.sampled_from(string.ascii_letters + string.digits + " .,;:\n"), max_size=60)
_LOWER = st.text(string.ascii_lowercase, min_size=1, max_size=10)
_ALNUM = string.ascii_letters + string.digits
_PLANTS = st.one_of(
    st.builds(
        "{}.{}@{}.{}".format, _LOWER, _LOWER, _LOWER, st.sampled_from(["com", "io", "local"])
    ),
    st.builds("+49 {} {}".format, st.integers(170, 179), st.integers(1_000_000, 9_999_999)),
    st.builds("+1 (415) {}-{}".format, st.integers(200, 999), st.integers(1000, 9999)),
    st.builds("sk-{}".format, st.text(_ALNUM, min_size=20, max_size=48)),
    st.builds("ghp_{}".format, st.text(_ALNUM, min_size=36, max_size=36)),
    st.builds(
        "AKIA{}".format, st.text(string.ascii_uppercase + "234567", min_size=16, max_size=16)
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    before=st.lists(_AROUND, max_size=2),
    plant=_PLANTS,
    open_=st.sampled_from([" ", "\n", "(", '"', "<", ", "]),
    close=st.sampled_from([" ", "\n", ")", '"', ">", ", ", ". ", ""]),
    after=st.lists(_AROUND, max_size=2),
)
def test_wherever_it_stands_it_is_removed(
    scrubber: Scrubber, before: list[str], plant: str, open_: str, close: str, after: list[str]
) -> None:
    text = " ".join(before) + open_ + plant + close + (" ".join(after) if close else "")
    done, counts = scrubber.scrub([*before, text, *after], "1")
    assert plant not in "\n".join(done)
    assert sum(counts.values()) >= 1
