"""Settings and fixtures that all tests share."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
from pathlib import Path

# Before torch and transformers are imported anywhere: no hub, and waiting threads do not spin.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import httpx._transports.default
import httpx2._transports.default
import pytest

from routing.tokenizer import FileTokenizer

# Every client would read all authorities' certificates anew, for 45 ms; none of them speaks TLS.
for module in (httpx._transports.default, httpx2._transports.default):
    module.create_ssl_context = functools.cache(module.create_ssl_context)

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    *("test_vllm.py", "test_training.py", "test_distributed.py"),
    *("test_workers.py", "test_export.py"),
)
"""Files that take long, most because their processes wait for each other: beside their like they
get slow many times over. The first begins the run, the rest follow at equal distances, so that they
seldom meet and none is left alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; needs `--no-loadscope-reorder`, without which the shortest come last."""
    files = list(dict.fromkeys(item.path for item in items))
    heavy = sorted((f for f in files if f.name in HEAVY), key=lambda file: HEAVY.index(file.name))
    light = [file for file in files if file not in heavy]
    places = {file: len(light) * place // len(HEAVY) for place, file in enumerate(heavy)}
    places |= {file: place for place, file in enumerate(light)}
    items.sort(key=lambda item: (places[item.path], item.path.name not in HEAVY))


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
def experts_twin(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A run of the tiny twin of `qwen3-30b-a3b-lora-experts`: two processes, ZeRO-3.

    Trained once for all workers of a test run: whoever comes second waits for the first.
    """
    from twin import train_twin, write_data

    if shutil.which("g++") is None:
        pytest.skip("DeepSpeed builds an extension by g++")
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "experts"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "run" / "checkpoint" / "manifest.json").is_file():
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
