"""Opening the sources that a recipe names, and parting them into training and validation."""

from __future__ import annotations

from pathlib import Path
from random import Random

from data_synthesis.authored.library import Library
from data_synthesis.authored.source import AuthoredSource
from data_synthesis.recipe import DataRecipe
from data_synthesis.sources.base import Source
from data_synthesis.sources.corpus import CorpusSource
from data_synthesis.sources.readers import READERS, read_wordings
from data_synthesis.sources.stored import read_stored
from routing.errors import InvalidRecord


def open_sources(
    recipe: DataRecipe, library: Library, corpora: Path | None, wordings: Path
) -> list[Source]:
    """The sources of a recipe in the order of their names.

    `corpora` is the folder of the public corpora, needed where the recipe names one. Raises
    InvalidRecord for an unknown source, a missing folder, or files that are malformed.
    """
    extra = read_wordings(wordings)
    sources: list[Source] = []
    for name, choice in sorted(recipe.sources.items()):
        if choice.folder is not None:
            corpus = read_stored(Path(choice.folder))
            if corpus.name != name:
                raise InvalidRecord(f"sources.{name}: {choice.folder} holds {corpus.name!r}")
            sources.append(CorpusSource(corpus, library.phrases))
        elif name == AuthoredSource.name:
            sources.append(AuthoredSource(library))
        elif name in READERS:
            if corpora is None:
                raise InvalidRecord(f"sources.{name}: needs the folder of the corpora")
            sources.append(CorpusSource(READERS[name](corpora, extra), library.phrases))
        else:
            known = ", ".join(("authored", *READERS))
            raise InvalidRecord(f"sources.{name}: known are {known}, or give a folder")
    return sources


def part(source: Source, share: float, seed: int) -> tuple[Source, Source]:
    """Training and validation parts of a source, apart by whole groups of tasks.

    No request for a validation task, and no dialogue that touches one, is in the training part.
    """
    groups = source.groups()
    names = sorted(groups)
    Random(f"{seed}/{source.name}").shuffle(names)
    total = sum(len(keys) for keys in groups.values())
    held_out: frozenset[str] = frozenset()
    for name in names[:-1]:
        if len(held_out) >= share * total:
            break
        held_out |= groups[name]
    kept = frozenset(source.tasks) - held_out
    return source.restricted(kept), source.touching(held_out)
