"""Weights read straight from files are those that transformers and PEFT load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TinyCheckpoint, make_checkpoint

from routing.errors import UnsupportedCheckpoint
from serving.engine.checkpoint import load_model
from serving.engine.contract import read_contract
from serving.engine.lora import LoraAdapter
from serving.engine.plain import ENCODER_PREFIX, MODEL_PREFIX, PlainModel
from serving.engine.tensors import Take, TensorFiles
from serving.engine.whole import load_weights

FIRST = """
import sys
from pathlib import Path
from scripts.base_model import ensure_base
from serving.engine.embedded import EmbeddedEngine
import asyncio

engine = EmbeddedEngine(Path(sys.argv[1]), ensure_base("SmolLM2-135M-Instruct"))
asyncio.run(engine.start())
print(sorted({"transformers", "peft", "sklearn"} & sys.modules.keys()))
"""


def check_equal(take: Take, names: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    for name in names:
        torch.testing.assert_close(take(name), theirs[name], rtol=1e-6, atol=1e-6, msg=name)


def check_like_transformers(folder: Path, base: Path | None) -> PlainModel:
    contract = read_contract(folder)
    model = PlainModel.of(contract, base or folder)
    assert model is not None
    whole = load_weights(contract, base or folder)
    take = model.adapter.over(model.files, MODEL_PREFIX) if model.adapter else model.files
    names = model.shape.tensors()
    theirs = whole.model.base_model.state_dict()
    assert theirs.keys() == names.keys()
    check_equal(take, names, theirs)
    if model.encoder is not None:
        shape, files = model.encoder
        assert model.adapter is not None
        theirs = whole.encoder.state_dict()
        assert theirs.keys() == shape.tensors().keys()
        check_equal(model.adapter.over(files, ENCODER_PREFIX), shape.tensors(), theirs)
    return model


def test_the_released_nano(nano: Path, base_folder: Path) -> None:
    model = check_like_transformers(nano, base_folder)
    assert model.adapter is not None
    assert model.encoder is not None
    assert model.shape.layers == 18


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("root", [False, True])
def test_an_adapter(tmp_path: Path, dtype: torch.dtype, root: bool) -> None:
    tiny = make_checkpoint(tmp_path / "tiny", weights="adapter", adapter_dtype=dtype)
    edit_adapter(tiny.folder, use_rslora=root)
    check_like_transformers(tiny.folder, tiny.base)


def edit_adapter(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"].pop(path.name, None)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_whole_model(tmp_path: Path) -> None:
    check_like_transformers(make_checkpoint(tmp_path / "tiny").folder, None)


def shards(source: Path, target: Path, prefix: str, dtype: torch.dtype) -> TensorFiles:
    """A model's weights as two files with an index."""
    weights = load_file(source / "model.safetensors")
    names = sorted(weights)
    target.mkdir()
    places = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        stored = {prefix + name.removeprefix("model."): weights[name].to(dtype) for name in part}
        save_file(stored, target / file)
        places |= dict.fromkeys(stored, file)
    index = {"metadata": {}, "weight_map": places}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return TensorFiles(target, ["model."])


@pytest.mark.parametrize("prefix", ["model.", ""])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shards_and_half_precision(tmp_path: Path, prefix: str, dtype: torch.dtype) -> None:
    tiny = make_checkpoint(tmp_path / "tiny").folder
    files = shards(tiny, tmp_path / "shards", prefix, dtype)
    whole = TensorFiles(tiny, ["model."])
    model = PlainModel.of(read_contract(tiny), tiny)
    assert model is not None
    files.check(model.shape.tensors())
    for name in model.shape.tensors():
        found = files(name)
        assert found.dtype == torch.float32
        assert torch.equal(found, whole(name).to(dtype).float())


def test_a_weight_of_another_size_is_named(tmp_path: Path) -> None:
    tiny = make_checkpoint(tmp_path / "tiny").folder
    config = json.loads((tiny / "config.json").read_text()) | {"intermediate_size": 96}
    (tiny / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedCheckpoint, match=r"mlp\.\w+\.weight is \(\d+, \d+\), by"):
        PlainModel.of(read_contract(tiny), tiny)


@pytest.mark.parametrize("field", ["num_attention_heads", "rms_norm_eps"])
def test_a_configuration_with_a_gap_is_refused(tmp_path: Path, field: str) -> None:
    tiny = make_checkpoint(tmp_path / "tiny").folder
    config = json.loads((tiny / "config.json").read_text())
    del config[field]
    (tiny / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedCheckpoint, match=field):
        PlainModel.of(read_contract(tiny), tiny)


@pytest.fixture
def adapter(tmp_path: Path) -> TinyCheckpoint:
    return make_checkpoint(tmp_path / "tiny", weights="adapter")


def test_an_adapter_of_another_size_is_refused(adapter: TinyCheckpoint) -> None:
    path = adapter.folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("q_proj.lora_B.weight"))
    save_file(weights | {name: weights[name][:-1].clone()}, path)
    contract = read_contract(adapter.folder)
    assert adapter.base is not None
    with pytest.raises(UnsupportedCheckpoint, match=r"does not fit its base: .*q_proj is"):
        PlainModel.of(contract, adapter.base)


def test_an_adapter_that_is_not_finite_is_refused(adapter: TinyCheckpoint) -> None:
    path = adapter.folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("lora_A.weight"))
    weights[name][0, 0] = torch.nan
    save_file(weights, path)
    assert adapter.base is not None
    model = PlainModel.of(read_contract(adapter.folder), adapter.base)
    assert model is not None
    with pytest.raises(UnsupportedCheckpoint, match="is not finite"):
        model.backbone()


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "lm_head"]},
        {"bias": "all"},
        {"peft_type": "LOHA"},
        {"not_known_yet": {"kind": 1}},
    ],
)
def test_only_plain_lora_is_merged_here(adapter: TinyCheckpoint, changes: dict[str, Any]) -> None:
    assert LoraAdapter.fits(adapter.folder)
    edit_adapter(adapter.folder, **changes)
    assert not LoraAdapter.fits(adapter.folder)


def test_adapters_of_other_kinds_are_left_to_peft(adapter: TinyCheckpoint) -> None:
    edit_adapter(adapter.folder, rank_pattern={"q_proj": 4})
    assert not LoraAdapter.fits(adapter.folder)
    contract = read_contract(adapter.folder)
    assert adapter.base is not None
    assert PlainModel.of(contract, adapter.base) is None
    model = load_model(contract, adapter.base)
    states, _ = model.backbone([], [5, 6, 7], [2], [3], lambda: None)
    edit_adapter(adapter.folder, rank_pattern={})
    plain = load_model(contract, adapter.base)
    ours, _ = plain.backbone([], [5, 6, 7], [2], [3], lambda: None)
    torch.testing.assert_close(ours, states, rtol=1e-4, atol=1e-5)


def test_a_server_of_the_nano_does_not_wait_for_transformers(nano: Path, base_folder: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", FIRST, nano], capture_output=True, text=True, check=False
    )
    assert found.stdout == "[]\n", found.stderr
