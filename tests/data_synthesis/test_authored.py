"""The authored library: templates, dialogues, and the released texts themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
import yaml
from library_files import dump, write_library

from data_synthesis.authored.grammar import Fill, TemplateError, compile_template
from data_synthesis.authored.library import Library, load_library
from data_synthesis.authored.source import AuthoredSource
from data_synthesis.quality.duplicates import words
from routing.errors import InvalidRecord

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"city": ["Oslo", "Lima", "Rome"], "a_b": ["ab"]}


@pytest.fixture(scope="module")
def released() -> Library:
    return load_library(ROOT / "configs" / "authored", ROOT / "configs" / "taxonomy")


def test_templates_fill_slots_and_choose_alternatives() -> None:
    template = compile_template("{go|walk to {city}|} now {a_b}", WORDS)
    found = {Fill(Random(n), WORDS)(template) for n in range(60)}
    assert found == {"go now ab", " now ab", *(f"walk to {c} now ab" for c in WORDS["city"])}


def test_a_slot_keeps_its_value_and_its_second_is_another() -> None:
    fill = Fill(Random(1), WORDS)
    template = compile_template("{city} {city} {city_2} {city_3}", WORDS)
    one, again, two, three = fill(template).split()
    assert one == again
    assert {one, two, three} == set(WORDS["city"])
    assert fill(compile_template("{city}", WORDS)) == one


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{town}", r"no values for \{town\}"),
        ("{city", "without"),
        ("city}", "without"),
        ("{a {city}}", "slot's name or alternatives"),
    ],
)
def test_templates_that_cannot_be_filled_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint):
        compile_template(text, WORDS)


def test_pasted_material_is_not_pasted_twice(tmp_path: Path) -> None:
    template = compile_template("{CODE} {CODE}", {"CODE": ["a", "b"]})
    for n in range(20):
        text = Fill(Random(n), {})(template, {"CODE": ["a", "b"]})
        assert sorted(text.split()) == ["a", "b"]


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("tasks/forge.yaml", {"slots": {"thing": ["x"]}}, "forge.yaml: slots.thing"),
        ("tasks/forge.yaml", {"tasks": {}}, "forge.yaml: tasks.*differ"),
        ("tasks/forge.yaml", {"tsks": {}}, "forge.yaml: tsks"),
        ("phrases.yaml", {"thanks": []}, "phrases.yaml: thanks"),
        ("phrases.yaml", {"joins": ["{first} only"]}, "must hold"),
        ("phrases.yaml", {"thanks": ["{nope}"]}, "no values for"),
        ("slots.yaml", {"person": "Ada"}, "slots.yaml: person"),
        ("families.yaml", {"families": [{"name": "x"}]}, "families.yaml: families.0"),
    ],
)
def test_malformed_files_name_file_and_place(
    tmp_path: Path, file: str, change: dict[str, object], complaint: str
) -> None:
    library, taxonomy = write_library(tmp_path)
    path = library / file
    dump(path, {**yaml.safe_load(path.read_text()), **change})
    with pytest.raises(InvalidRecord, match=complaint):
        load_library(library, taxonomy)


def test_yaml_that_does_not_parse_is_named_with_its_line(tmp_path: Path) -> None:
    library, taxonomy = write_library(tmp_path)
    (library / "tasks" / "forge.yaml").write_text("domain: forge\nslots: [\n")
    with pytest.raises(InvalidRecord, match=r"forge\.yaml(.|\n)*line 3"):
        load_library(library, taxonomy)


def test_a_family_of_unknown_tasks_is_refused(tmp_path: Path) -> None:
    library, taxonomy = write_library(tmp_path)
    families = yaml.safe_load((library / "families.yaml").read_text())
    families["families"][0]["members"].append("forge/nothing")
    dump(library / "families.yaml", families)
    with pytest.raises(InvalidRecord, match=r"mending: no such task: forge/nothing"):
        load_library(library, taxonomy)


def test_dialogues_move_between_tasks_and_come_back(tmp_path: Path) -> None:
    source = AuthoredSource(load_library(*write_library(tmp_path)))
    kinds: Counter[int] = Counter()
    for number in range(300):
        draft = source.draw(Random(number), 10)
        users = [line for line in draft.lines if line.role == "user"]
        assert 1 <= len(users) <= 11  # thanks may follow
        assert users[0].alone
        assert all(line.tasks is not None for line in users)
        kinds[len(draft.tasks)] += 1
    assert len(kinds) >= 4
    returned = sum(
        line.text.startswith("back again:")
        for number in range(300)
        for line in source.draw(Random(number), 10).lines
    )
    assert returned > 5


def test_a_source_restricted_to_some_tasks_speaks_of_no_other(tmp_path: Path) -> None:
    whole = AuthoredSource(load_library(*write_library(tmp_path)))
    kept = frozenset(key for key in whole.tasks if "/forge/" in key)
    part = whole.restricted(kept)
    spoken = {key for number in range(100) for key in part.draw(Random(number), 10).tasks}
    assert spoken == kept
    assert part.request(Random(1), "authored/bakery/mend_bakery") is None


def test_the_released_library_is_large_and_varied(released: Library) -> None:
    frames = list(released.frames())
    assert len(frames) >= 9000
    openings = [t.text for talk in released.talk.values() for t in talk.openings]
    assert min(len(talk.openings) for talk in released.talk.values()) >= 9
    starts = Counter(" ".join(words(text)[:3]) for text in openings)
    # No handful of frames gives the texts away.
    assert sum(n for _, n in starts.most_common(10)) / len(openings) < 0.05
    lengths = [len(words(text)) for text in openings]
    assert min(lengths) <= 4
    assert max(lengths) >= 45


def test_every_released_template_can_be_filled(released: Library) -> None:
    source = AuthoredSource(released)
    for key in source.tasks:
        line = source.request(Random(key), key)
        assert line is not None
        assert line.text.strip()
        slots = released.slots[key.split("/")[1]]
        said = line.text.split("\n\n")[0]
        assert not [name for name in slots if f"{{{name}}}" in said or f"{{{name}_2}}" in said]


def test_every_task_of_the_taxonomy_belongs_to_a_family(released: Library) -> None:
    covered = {key for unit in released.coarse if unit.grain == "family" for key in unit.covers}
    tasks = {f"authored/{key}" for key, _ in released.taxonomy.tasks()}
    assert len(tasks - covered) < 0.1 * len(tasks)
