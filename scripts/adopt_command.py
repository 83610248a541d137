"""`pointsman adopt`: another project's routing model, served beside our own for comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

PROMPT = """\
You choose which route a request takes. The routes that there are:
<routes>
{routes}
</routes>
The conversation so far:
<conversation>
{conversation}
</conversation>
Judge the last user message in the light of what was said before. Answer with JSON alone: """

ANSWERS = {
    "plano-orchestrator": '{"route": ["name", …]}, with an empty list where no route fits.',
    "arch-router": '{"route": "name"}, or {"route": "other"} where no route fits.',
}


def adopt(
    weights: Annotated[Path, typer.Argument(help="Folder of a model in Hugging Face's form.")],
    format: Annotated[
        Literal["plano-orchestrator", "arch-router"],
        typer.Option(help="How it is asked and answers."),
    ],
    prompt: Annotated[
        Path | None,
        typer.Option(
            help="File of the message it was trained with, with {routes} and {conversation}."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
) -> None:
    """Write a manifest into a folder of weights, so that vLLM serves it as a routing model.

    Such a model decides well only by the very message it was trained with: take it from its card.
    Without one, a message of our own in the same form is used.
    """
    from routing.errors import UnsupportedCheckpoint
    from routing.layout import Budget
    from routing.manifest import (
        MANIFEST_FILE,
        BaseModelRef,
        GeneratedReadOut,
        Manifest,
        file_sha256,
    )

    if (weights / MANIFEST_FILE).exists():
        raise UnsupportedCheckpoint(f"{weights} has a {MANIFEST_FILE} already")
    try:
        config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
        sizes = int(config["hidden_size"]), int(config["vocab_size"])
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedCheckpoint(f"{weights} holds no model: {error!r}") from None
    if not (weights / "tokenizer.json").is_file():
        raise UnsupportedCheckpoint(f"{weights} lacks tokenizer.json")
    text = prompt.read_text(encoding="utf-8") if prompt else PROMPT + ANSWERS[format]
    files = [path for path in weights.iterdir() if path.suffix in (".json", ".safetensors")]
    manifest = Manifest(
        name=name or weights.resolve().name,
        base=BaseModelRef(
            name=config.get("_name_or_path") or weights.resolve().name,
            revision="adopted",
            hidden_size=sizes[0],
            vocabulary=sizes[1],
        ),
        weights="merged",
        read_out=GeneratedReadOut(format=format, prompt=text),
        budget=Budget(),
        files={path.name: file_sha256(path) for path in sorted(files)},
    )
    manifest.save(weights)
    print(f"{manifest.name} {manifest.version}: {weights / MANIFEST_FILE}")
