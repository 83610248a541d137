"""The manifest: everything that training and serving must agree on, saved with the checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator

from routing.decision import Calibration, RiskPoint
from routing.encoder import EncoderRef
from routing.errors import UnsupportedCheckpoint
from routing.layout import LAYOUT_VERSIONS, Budget
from routing.pointer import LineState
from routing.tasks import Wire

MANIFEST_FILE = "manifest.json"


class PointerReadOut(Wire):
    """Scaled cosine of projected states; see `routing.pointer`."""

    kind: Literal["pointer"] = "pointer"
    dim: Annotated[int, Field(gt=0)]
    lines: LineState = "end"
    """What a line's state is."""


class IdentifierReadOut(Wire):
    """Softmax over the logits of single-token identifiers at the decision position."""

    kind: Literal["identifier"] = "identifier"
    identifiers: Annotated[list[str], Field(min_length=2)]
    """Line i of a prefix, "none" included, carries identifier i."""


class GeneratedReadOut(Wire):
    """JSON that the model generates: routing models of others, served for comparison."""

    kind: Literal["generated"] = "generated"
    format: Literal["plano-orchestrator", "arch-router"]
    """How routes are written and what an answer looks like."""
    prompt: str
    """The user message, with {routes} and then {conversation} in it."""

    @field_validator("prompt")
    @classmethod
    def _has_both_places(cls, prompt: str) -> str:
        routes, conversation = prompt.find("{routes}"), prompt.find("{conversation}")
        if routes < 0 or conversation < routes:
            raise ValueError("must hold {routes} and, after it, {conversation}")
        return prompt


ReadOut = Annotated[
    PointerReadOut | IdentifierReadOut | GeneratedReadOut, Field(discriminator="kind")
]


class BaseModelRef(Wire):
    """The model that was fine-tuned."""

    name: str
    """A hub id, or the name of a base that `pointsman base` provides."""
    revision: str
    """A hub commit, or the package release the weights came from."""
    hidden_size: int
    vocabulary: int
    layers: Annotated[int, Field(gt=0)] | None = None
    """Decoder layers kept, from the first; None keeps all. States are read after the last kept."""


class Manifest(Wire):
    """`manifest.json` of a checkpoint folder."""

    # Provenance may grow without a new version: a server needs none of it to decide.
    model_config = ConfigDict(extra="ignore", frozen=True)

    manifest_version: Literal[1] = 1
    layout_version: int = 1
    name: str
    base: BaseModelRef
    weights: Literal["adapter", "merged"]
    """LoRA adapter to be put on the base, or a full model in this folder."""
    read_out: ReadOut
    encoder: EncoderRef | None = None
    """Whose vectors the pointer reads beside the states, if any; see `routing.encoder`."""
    budget: Budget
    calibration: Calibration = Calibration()
    risk_coverage: list[RiskPoint] = Field(default_factory=list)
    """What thresholds on confidence kept of the validation data, for an owner to choose by."""
    files: dict[str, str]
    """SHA-256 of each file that a decision depends on."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Recipe, dataset hash, git commit, package versions, metrics: for people, not for serving."""

    def save(self, folder: str | Path) -> None:
        """Write `manifest.json`, whole or not at all."""
        target = Path(folder) / MANIFEST_FILE
        part = target.with_suffix(".part")
        part.write_text(self.model_dump_json(indent=2) + "\n")
        part.replace(target)

    @property
    def _unsaid(self) -> set[str]:
        """Parts of a calibration that came later and that this one leaves as they were before."""
        return set() if self.calibration.none_bias else {"none_bias"}

    @property
    def version(self) -> str:
        """Short id of the checkpoint: a hash of what its decisions depend on."""
        material = json.dumps(
            [
                self.layout_version,
                # What an older manifest does not say must not change its checkpoint's id.
                self.read_out.model_dump(exclude_unset=True),
                self.budget.model_dump(),
                self.files,
                self.calibration.model_dump(exclude=self._unsaid),
                # Older manifests have none, and their ids stay.
                *([self.encoder.model_dump()] if self.encoder else []),
            ],
            sort_keys=True,
        )
        return hashlib.sha256(material.encode()).hexdigest()[:12]


def load_manifest(folder: str | Path, *, verify: bool = True) -> Manifest:
    """The manifest of a checkpoint folder, with its files' hashes checked.

    Raises UnsupportedCheckpoint with the reason: no manifest, a broken one, a layout of another
    version, a file missing or changed.
    """
    folder = Path(folder)
    path = folder / MANIFEST_FILE
    try:
        raw = json.loads(path.read_text())
    except OSError as error:
        raise UnsupportedCheckpoint(f"{folder} is no checkpoint: {error}") from None
    except ValueError as error:
        raise UnsupportedCheckpoint(f"{path} is not JSON: {error}") from None
    found = raw.get("layout_version") if isinstance(raw, dict) else None
    if found not in LAYOUT_VERSIONS:
        raise UnsupportedCheckpoint(
            f"{path} has layout version {found!r}; this release knows "
            f"{', '.join(map(str, LAYOUT_VERSIONS))}"
        )
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UnsupportedCheckpoint(f"{path}: {field}: {first['msg']}") from None
    if verify:
        for name, expected in manifest.files.items():
            if not (folder / name).is_file():
                raise UnsupportedCheckpoint(f"{folder} lacks {name}")
            if file_sha256(folder / name) != expected:
                raise UnsupportedCheckpoint(f"{folder / name} differs from its manifest's hash")
    return manifest


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
