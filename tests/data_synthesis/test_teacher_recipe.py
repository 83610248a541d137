"""Recipes and prompts of a teacher: what is refused before anything is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from teacher_server import ROOT, TeacherServer, run, write_recipe

from data_synthesis.teacher.estimate import estimate
from data_synthesis.teacher.recipe import load_teacher_recipe
from routing.errors import InvalidRecord


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": 1}, "colour: Extra inputs"),
        ({"base_url": "http://me:word@host/v1"}, "base_url.*key_variable"),
        ({"base_url": "ftp://host"}, "base_url"),
        ({"domains": []}, "at least one is needed"),
        ({"domains": ["nothing_of_the_kind"]}, "domains: .* has no 'nothing_of_the_kind'"),
        ({"prices": None}, "spend_cap needs prices"),
        ({"judge_model": "other"}, "spend_cap needs prices"),
        ({"spend_cap": None}, "spend_cap or token_cap"),
        ({"turns": {"low": 3, "high": 2}}, "turns: .*below"),
        ({"topics": ["!?"]}, "no letter"),
        ({"topics": ["hotel and hospitality service"]}, "stands for two"),
        ({"key_variable": "TEACHER_KEY_THAT_IS_NOT_SET"}, "TEACHER_KEY_THAT_IS_NOT_SET is not set"),
        ({"prompts": "nowhere"}, "cannot read prompt"),
    ],
)
def test_bad_recipes_are_refused(
    server: TeacherServer, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRecord, match=said):
        run(write_recipe(tmp_path, server.url, **changes), tmp_path / "out")
    assert not server.bodies
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"), [("About $topick", r"\$topick is unknown"), ("Costs $5", "write \\$\\$")]
)
def test_bad_prompts_are_refused(
    server: TeacherServer, tmp_path: Path, text: str, said: str
) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    for path in (ROOT / "configs/teacher/prompts").iterdir():
        (folder / path.name).write_text(path.read_text())
    (folder / "judge.md").write_text(text)
    with pytest.raises(InvalidRecord, match=f"judge.md: .*{said}"):
        run(write_recipe(tmp_path, server.url, prompts=str(folder)), tmp_path / "out")


def test_the_shipped_recipe_is_sound() -> None:
    path = ROOT / "configs/teacher/standard.yaml"
    recipe = load_teacher_recipe(path)
    said = estimate(path)
    assert recipe.spend_cap is not None
    assert 0 < said["money"] < recipe.spend_cap
