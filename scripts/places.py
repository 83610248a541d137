"""Where things are in a checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


def config_path(kind: str, name: str) -> Path:
    """A YAML file as given, or the one of that name under `configs/<kind>`."""
    path = Path(name)
    return path if path.suffix in (".yaml", ".yml") else CONFIGS / kind / f"{name}.yaml"
