"""Fit a checkpoint's calibration on validation records and store it in the manifest."""

from __future__ import annotations

import logging
from pathlib import Path

from routing.calibration import fit, labelled, risk_points
from routing.decision import Calibration
from routing.manifest import load_manifest
from routing.records import read_conversations
from training.card import write_card
from training.scoring import ModelDecider

logger = logging.getLogger(__name__)


def calibrate(checkpoint: Path, base: Path | None, validation: Path) -> Calibration:
    """Fit on all decisions of a file of conversation records; returns what was stored."""
    records = list(read_conversations(validation))
    decider = ModelDecider.from_checkpoint(checkpoint, base)
    decisions = [
        labelled(scores, [route.name for route in record.routes], label.expected)
        for record, rows in zip(records, decider.scores(records), strict=True)
        for label, scores in zip(record.decisions, rows, strict=True)
    ]
    calibration = fit(decisions)
    manifest = load_manifest(checkpoint)
    risk = risk_points(decisions, calibration)
    manifest.model_copy(update={"calibration": calibration, "risk_coverage": risk}).save(checkpoint)
    write_card(checkpoint)
    logger.info("calibrated on %d decisions: %s", len(decisions), calibration)
    return calibration
