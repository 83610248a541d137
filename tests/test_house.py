"""The rules of the house: what may import what, and how long a file may get."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_synthesis", "training", "serving")
SOURCES = [p for name in (*PACKAGES, "routing", "scripts") for p in (ROOT / name).rglob("*.py")]


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_do_not_import_each_other(package: str) -> None:
    others = {*PACKAGES, "scripts"} - {package}
    for path in (ROOT / package).rglob("*.py"):
        assert not imported(path) & others, path


def test_routing_imports_only_itself_of_the_house() -> None:
    for path in (ROOT / "routing").rglob("*.py"):
        assert not imported(path) & {*PACKAGES, "scripts"}, path


def test_routing_is_light() -> None:
    modules = [f"routing.{path.stem}" for path in (ROOT / "routing").glob("[!_]*.py")]
    heavy = ("torch", "transformers", "fastapi", "aiohttp", "datasets")
    code = f"import sys, {', '.join(modules)}; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_command_line_starts_without_heavy_imports() -> None:
    code = (
        "import sys, scripts.cli; "
        "print([m for m in ('torch', 'transformers', 'fastapi') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_files_stay_short() -> None:
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert not long
