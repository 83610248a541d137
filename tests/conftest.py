"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

# Before torch and transformers are imported anywhere: no hub, and waiting threads do not spin.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

from routing.tokenizer import FileTokenizer

ROOT = Path(__file__).resolve().parents[1]
HEAVY = "heavy"
"""Group of tests that start vLLM or trainings of several processes: one of them at a time, because
processes that wait for each other get slow many times over where others compute beside them."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file stay on one worker; the heavy ones begin first, lest they end alone."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=lambda item: next(item.iter_markers("xdist_group")).args != (HEAVY,))


@pytest.fixture(scope="session")
def base_folder() -> Path:
    """The nano base model, converted on first use."""
    from scripts.base_model import NANO_BASE, ensure_base

    return ensure_base(NANO_BASE)


@pytest.fixture(scope="session")
def nano() -> Path:
    """The released nano checkpoint."""
    return ROOT / "checkpoints" / "nano"


@pytest.fixture(scope="session")
def tokenizer(nano: Path) -> FileTokenizer:
    """The real tokenizer, as the released checkpoint carries it."""
    return FileTokenizer(nano / "tokenizer.json")


@pytest.fixture(scope="session")
def experts_twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny twin of `qwen3-30b-a3b-lora-experts`: two processes, ZeRO-3."""
    from twin import train_twin, write_data

    if shutil.which("g++") is None:
        pytest.skip("DeepSpeed builds an extension by g++")
    folder = tmp_path_factory.mktemp("experts")
    train_twin("qwen3-30b-a3b-lora-experts", write_data(folder / "data"), folder / "run")
    return folder / "run"


def _folder_from(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names a folder of data that the repo lacks")
    return Path(value)


@pytest.fixture(scope="session")
def corpora_folder() -> Path:
    """Training corpora, where `POINTSMAN_CORPORA` names them."""
    return _folder_from("POINTSMAN_CORPORA")
