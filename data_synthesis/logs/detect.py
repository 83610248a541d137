"""Where personal data and secrets stand in a text: Presidio with recognisers of our own.

No model is downloaded and nothing is asked of the network. Without a spaCy model (`pii_model`)
Presidio runs on patterns and checksums alone, and names of persons are found only where people
introduce themselves, are addressed, or sign; with one, its persons are found as well.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from data_synthesis.logs import patterns

PHONE_REGIONS = ("US", "GB", "DE", "FR", "IN", "ES", "IT", "AU", "BR")
"""Countries whose national way of writing a phone number is known; +… is known for all."""
THRESHOLD = 0.3
"""Presidio's scores below it are digits of the right number that no checksum or form confirms."""
SPARED = ("127.0.0.1", "0.0.0.0", "255.255.255.255", "::1")  # noqa: S104 - addresses of nobody
LANGUAGE = "en"
"""Only a label in Presidio: patterns are of no language."""

KINDS = (
    "WALLET",
    "SECRET",
    "CREDENTIALS",
    "PASSWORD",
    "EMAIL",
    "IBAN",
    "CARD",
    "NATIONAL_ID",
    "MAC_ADDRESS",
    "IP_ADDRESS",
    "PHONE",
    "BIRTH_DATE",
    "ADDRESS",
    "USERNAME",
    "PERSON",
)
"""Most certain first: where finds overlap, the first kind names the whole."""
_OURS = {
    "SECRET": patterns.SECRETS,
    "CREDENTIALS": patterns.CREDENTIALS,
    "PASSWORD": patterns.PASSWORDS,
    "EMAIL": patterns.EMAILS,
    "PHONE": patterns.PHONES,
    "PERSON": patterns.PERSONS,
    "ADDRESS": patterns.ADDRESSES,
    "BIRTH_DATE": patterns.BIRTH_DATES,
    "USERNAME": patterns.USERNAMES,
    "WALLET": patterns.WALLETS,
}
_THEIRS = {
    "CreditCardRecognizer": "CARD",
    "IbanRecognizer": "IBAN",
    "CryptoRecognizer": "WALLET",
    "IpRecognizer": "IP_ADDRESS",
    "MacAddressRecognizer": "MAC_ADDRESS",
    "UsSsnRecognizer": "NATIONAL_ID",
    "UsItinRecognizer": "NATIONAL_ID",
    "UkNinoRecognizer": "NATIONAL_ID",
    "NhsRecognizer": "NATIONAL_ID",
    "InAadhaarRecognizer": "NATIONAL_ID",
    "CaSinRecognizer": "NATIONAL_ID",
}
"""Left out: EmailRecognizer, which downloads a list of domains and knows no others, and whatever
takes quadratic time (InPanRecognizer)."""


class DetectorUnavailable(RuntimeError):
    """Presidio or the spaCy model is not installed; the message says what to install."""


class DetectionIncomplete(RuntimeError):
    """A text took so long that Presidio gave a pattern up, and so may hold what was not found."""


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) are of a kind among `KINDS`."""

    start: int
    end: int
    kind: str


class Detector:
    """Finds spans; building one takes seconds, since spaCy is imported.

    `pii_model` is the name or folder of an installed spaCy pipeline. Raises DetectorUnavailable.
    """

    def __init__(
        self, pii_model: str | None = None, phone_regions: Iterable[str] = PHONE_REGIONS
    ) -> None:
        presidio = _presidio()
        self._limit: float = importlib.import_module(
            "presidio_analyzer.pattern_recognizer"
        ).REGEX_TIMEOUT_SECONDS
        nlp = _engine(pii_model)
        registry = presidio.RecognizerRegistry(recognizers=[], supported_languages=[LANGUAGE])
        for recogniser in _recognisers(presidio, tuple(phone_regions)):
            registry.add_recognizer(recogniser)
        if pii_model is not None:
            registry.add_nlp_recognizer(nlp)
        self._engine = presidio.AnalyzerEngine(
            registry=registry, nlp_engine=nlp, supported_languages=[LANGUAGE]
        )
        # System prompts and tool results recur from conversation to conversation.
        self._cached = lru_cache(maxsize=512)(self._find)

    def spans(self, text: str) -> tuple[Span, ...]:
        """Spans in order, none overlapping; raises DetectionIncomplete."""
        return self._cached(text)

    def _find(self, text: str) -> tuple[Span, ...]:
        started = time.monotonic()
        found = self._engine.analyze(
            text,
            LANGUAGE,
            entities=list(KINDS),
            score_threshold=THRESHOLD,
            allow_list=list(SPARED),
        )
        if time.monotonic() - started >= self._limit:
            raise DetectionIncomplete("looking for personal data took too long")
        return merged(Span(item.start, item.end, item.entity_type) for item in found)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, with those that overlap made one, of the most certain kind among them."""
    done: list[Span] = []
    for span in sorted(spans):
        if done and span.start < done[-1].end:
            last = done.pop()
            kind = min(last.kind, span.kind, key=KINDS.index)
            span = Span(last.start, max(last.end, span.end), kind)
        done.append(span)
    return tuple(done)


def _presidio() -> Any:
    # By name: it is optional, and its types would have every checker read spaCy as well.
    try:
        return importlib.import_module("presidio_analyzer")
    except ModuleNotFoundError:
        raise DetectorUnavailable(
            "importing logs needs Presidio to remove personal data: pip install 'pointsman[logs]'"
        ) from None


def _engine(pii_model: str | None) -> Any:
    engines = importlib.import_module("presidio_analyzer.nlp_engine")
    if pii_model is None:
        return engines.NoOpNlpEngine(models=[{"lang_code": LANGUAGE, "model_name": "none"}])
    # Looked for first, because Presidio would download what is missing.
    is_package = importlib.import_module("spacy.util").is_package
    if not (is_package(pii_model) or Path(pii_model).is_dir()):
        raise DetectorUnavailable(
            f"no spaCy pipeline {pii_model!r} is installed: python -m spacy download {pii_model}"
        )
    model = {"lang_code": LANGUAGE, "model_name": pii_model}
    engine = engines.SpacyNlpEngine(models=[model])
    engine.load()
    return engine


def _recognisers(presidio: Any, phone_regions: tuple[str, ...]) -> list[Any]:
    regex = importlib.import_module("regex")
    predefined = importlib.import_module("presidio_analyzer.predefined_recognizers")
    found = [
        getattr(predefined, name)(supported_language=LANGUAGE, supported_entity=kind)
        for name, kind in _THEIRS.items()
    ]
    found.append(
        predefined.PhoneRecognizer(
            supported_language=LANGUAGE, supported_entity="PHONE", supported_regions=phone_regions
        )
    )
    found += [
        presidio.PatternRecognizer(
            supported_entity=kind,
            name=f"pointsman {kind}",
            supported_language=LANGUAGE,
            patterns=[presidio.Pattern(f"{kind} {n}", text, 0.9) for n, text in enumerate(texts)],
            global_regex_flags=regex.MULTILINE,
        )
        for kind, texts in _OURS.items()
    ]
    return found
