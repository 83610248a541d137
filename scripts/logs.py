"""What commands say while they run."""

from __future__ import annotations

import logging
import sys


def log_to_stderr() -> None:
    """Show our own messages on standard error, which leaves standard output to results."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "sentence_transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
