"""The model card of a checkpoint: what it is, how it was made, what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from routing.manifest import Manifest, load_manifest

CARD_FILE = "README.md"
_MEASURES = ("turn_accuracy", "span_accuracy", "conversation_accuracy")


def write_card(folder: Path, report: dict[str, Any] | None = None) -> Path:
    """Write `README.md` from the manifest and, if given, a report of `pointsman eval` as JSON."""
    manifest = load_manifest(folder)
    header = {
        "base_model": f"HuggingFaceTB/{manifest.base.name}",
        "library_name": "peft" if manifest.weights == "adapter" else "transformers",
        "license": "apache-2.0",
        "tags": ["llm-routing", "intent-classification"],
    }
    parts = [
        "---\n" + yaml.safe_dump(header, sort_keys=False) + "---",
        f"# {manifest.name}",
        "A routing model of Pointsman: it reads a conversation and a list of routes (a name and a "
        'sentence each), and gives a probability to every route and to "none", in one forward '
        "pass. It generates no text.",
        "## How it decides\n\n" + _facts(manifest),
        "## How it was trained\n\n" + _training(manifest),
    ]
    if report is not None:
        parts.append("## Results\n\n" + results_table(report))
    parts.append(
        "## Limits\n\nEnglish only. Trained on short service dialogues and single requests; "
        "probabilities were calibrated on validation data of the same kinds and may be off on "
        "others. Check it on your own routes before relying on it."
    )
    path = folder / CARD_FILE
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def read_report(path: Path) -> dict[str, Any]:
    """A report that `pointsman eval --output report.json` wrote."""
    loaded = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def results_table(report: dict[str, Any]) -> str:
    """Markdown: turn, span and conversation accuracy of every decider on every file."""
    lines = [
        "| file | decider | turn | span | conversation | none P / R |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for file in report["files"]:
        for result in file["results"]:
            metrics = result["metrics"]
            cells = [file["benchmark"], result["decider"]]
            cells += [_interval(metrics[measure]) for measure in _MEASURES]
            precision, recall = metrics["none_precision"], metrics["none_recall"]
            cells.append(f"{_percent(precision['value'])} / {_percent(recall['value'])}")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _facts(manifest: Manifest) -> str:
    calibration, budget = manifest.calibration, manifest.budget
    return "\n".join(
        [
            f"- layout version {manifest.layout_version}, read-out `{manifest.read_out.kind}`, "
            f"checkpoint version `{manifest.version}`",
            f"- base `{manifest.base.name}` ({manifest.base.revision}), weights: "
            f"{manifest.weights}",
            f"- at most {budget.max_tokens} tokens, {budget.user_tokens} of a user turn",
            f"- temperature {calibration.temperature:.3f}, bias of "
            f'"none" {calibration.none_bias:+.2f}, "none" from '
            f"{calibration.none_threshold:.2f}, a further route from "
            f"{calibration.several_threshold:.2f}",
            *_risk(manifest),
        ]
    )


def _risk(manifest: Manifest) -> list[str]:
    """What thresholds on confidence kept of the validation data."""
    points = [p for p in manifest.risk_coverage if p.threshold in (0.0, 0.5, 0.7, 0.8, 0.9)]
    return [
        f"- of validation data, confidence from {point.threshold:.1f} keeps {point.coverage:.0%} "
        f"of decisions with {point.error:.1%} errors"
        for point in points
        if point.error is not None
    ]


def _training(manifest: Manifest) -> str:
    provenance = manifest.provenance
    recipe = provenance.get("recipe", {})
    lora = recipe.get("lora")
    kept = {
        "created": provenance.get("created"),
        "method": "full fine-tuning" if lora is None else f"LoRA, r = {lora['r']}",
        "steps": recipe.get("max_steps"),
        "conversations a step": recipe.get("batch_conversations", 0)
        * recipe.get("accumulation", 1),
        "learning rate": recipe.get("learning_rate"),
        "SHA-256 of the data file": provenance.get("data_sha256"),
        "data": _sources(provenance.get("data")),
        "git commit": provenance.get("git_commit"),
        "packages": ", ".join(f"{k} {v}" for k, v in provenance.get("packages", {}).items()),
    }
    return "\n".join(f"- {key}: {value}" for key, value in kept.items() if value is not None)


def _sources(data: dict[str, Any] | None) -> str | None:
    if data is None:
        return None
    sources = ", ".join(f"{name} ({facts['licence']})" for name, facts in data["sources"].items())
    return f"recipe `{data['recipe']}`, made from {sources}"


def _interval(estimate: dict[str, Any]) -> str:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    return f"{_percent(value)} [{_percent(low)}, {_percent(high)}]"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
