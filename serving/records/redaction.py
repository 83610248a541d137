"""What is taken out of text before it is stored: addresses, numbers and secrets of people.

A floor, not a promise: names of persons stay. `pointsman data import-logs` looks again, and closer,
before anything is trained on.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from routing.conversation import Turn

ACROSS = 4096
"""Characters; no find is longer, but for private keys in armour."""

Check = Callable[[str], bool]


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def _is_card(text: str) -> bool:
    """Luhn's check over 13 to 19 digits."""
    digits = [int(digit) for digit in reversed(_digits(text))]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return 13 <= len(digits) <= 19 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """ISO 13616: the number of the rearranged letters and digits is 1 modulo 97."""
    compact = text.replace(" ", "").upper()
    number = "".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])
    return 15 <= len(compact) <= 34 and int(number) % 97 == 1


def _is_address(text: str) -> bool:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified)


def _is_phone(text: str) -> bool:
    return 8 <= len(_digits(text)) <= 15


def _anything(_: str) -> bool:
    return True


_VALUE = r"[A-Za-z0-9_\-]"
_KINDS: tuple[tuple[str, str, Check], ...] = (
    (
        "SECRET",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[^-]*"
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?",
        _anything,
    ),
    ("SECRET", rf"\beyJ{_VALUE}{{8,}}\.{_VALUE}{{4,}}(?:\.{_VALUE}*)?", _anything),
    (
        "SECRET",
        r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk|pm|xai|pplx|hf|gsk|npm|whsec|glpat|gh[pousr]|github_pat"
        rf"|xox[abeoprs]|AIza|ya29\.|pypi|dapi|shpat)[_\-]?){_VALUE}{{16,}}",
        _anything,
    ),
    ("SECRET", r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16,}", _anything),
    ("SECRET", r"(?<=://)[^\s/@:]{1,64}:[^\s/@]{1,256}(?=@)", _anything),
    ("SECRET", r"(?i)(?<=\bbearer )[A-Za-z0-9._~+/=\-]{8,}", _anything),
    (
        "SECRET",
        r"(?i)\b(?:pass(?:word|wd|phrase)|pwd|secret|api[_ -]?key|access[_ -]?key|token)"
        r"[\"']?[ \t]{0,3}(?:=>|:=|=|:)[ \t]{0,3}[\"']?[^\s\"',;]{4,}",
        _anything,
    ),
    # Long and random: letters of both cases and digits, too mixed for a word or a path.
    (
        "SECRET",
        r"(?<![\w+/=\-])(?=[A-Za-z+_=\-]*\d)(?=[0-9A-Z+_=\-]*[a-z])(?=[0-9a-z+_=\-]*[A-Z])"
        r"[A-Za-z0-9+_=\-]{32,200}(?![/\w])",
        _anything,
    ),
    (
        "EMAIL",
        r"[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,8}",
        _anything,
    ),
    ("IBAN", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _is_iban),
    ("CARD", r"(?<![\d.\-])\d(?:[ \-]?\d){12,18}(?![\d\-])", _is_card),
    ("IP_ADDRESS", r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)", _is_address),
    ("IP_ADDRESS", r"(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])", _is_address),
    ("PHONE", r"(?<![\w+])\+\d[\d \-().]{6,20}\d(?!\w)", _is_phone),
    (
        "PHONE",
        r"(?<![\w.\-/])(?:\(\d{2,5}\)[ \-.]?|0\d{1,4}[ \-./]|\d{3}[ \-.])"
        r"\d{3,4}[ \-.]?\d{3,5}(?![\w\-])",
        _is_phone,
    ),
)
OWN = "REDACTED"
"""What stands for what the owner's own expressions find."""


class Redactor:
    """Takes out the kinds above, and what the owner's expressions find.

    Each find becomes ``<KIND>``. Of a conversation longer than `max_characters`, the last turns are
    kept and the first of these is cut at its front.
    """

    def __init__(self, max_characters: int, own: Iterable[str] = ()) -> None:
        self._max = max_characters
        ours = [(OWN, re.compile(pattern), _anything) for pattern in own]
        self._kinds = ours + [(kind, re.compile(text), check) for kind, text, check in _KINDS]

    def kept(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """Columns of `decision_texts`: messages up to the last user turn, and what was taken out.

        Text is redacted before it is cut, since half a card's number is no card's number.
        """
        last = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=-1)
        counts: Counter[str] = Counter()
        messages: list[dict[str, str]] = []
        left = self._max
        for turn in reversed(turns[: last + 1]):
            if left <= 0:
                break
            # What is cut away anyway need not be searched, but for what may lie across the cut.
            text = self.redacted(turn.text[-self._max - ACROSS :], counts)
            if len(turn.text) > self._max + ACROSS:
                text = text[ACROSS:]
            text = text[-left:]
            left -= len(text)
            messages.append({"role": turn.role, "content": text})
        messages.reverse()
        return {"messages": messages, "redacted": dict(counts)}

    def redacted(self, text: str, counts: Counter[str]) -> str:
        """A text without what must not be kept; `counts` is added to."""
        for kind, pattern, check in self._kinds:

            def stand_in(found: re.Match[str], kind: str = kind, check: Check = check) -> str:
                if not check(found[0]):
                    return found[0]
                counts[kind] += 1
                return f"<{kind}>"

            text = pattern.sub(stand_in, text)
        return text
