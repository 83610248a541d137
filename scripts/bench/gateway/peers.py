"""The gateways that ours is compared with, each in a folder of its own, installed once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

LITELLM = "litellm[proxy]>=1.100,<1.106"
PORTKEY = "1.15.2"
HONO = {"@hono/node-server": "1.13.8", "@hono/node-ws": "1.2.0"}
"""With what npm takes today every stream fails on Node 20 ("TypeError: immutable"); these
are of the generation that Portkey's own lock file names."""
INSTALL_S = 900


class NotInstalled(Exception):
    """A peer that cannot be had here; the message says why."""


def litellm(cache: Path) -> tuple[Path, str]:
    """Its program and version, in a virtual environment."""
    folder = cache / "litellm"
    program = folder / "bin" / "litellm"
    if not program.exists():
        print("installing LiteLLM", flush=True)
        _run([sys.executable, "-m", "venv", str(folder)], cache)
        _run([str(folder / "bin" / "pip"), "install", "--quiet", LITELLM], cache)
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    return program, _run([str(folder / "bin" / "python"), "-c", code], cache).strip()


def portkey(cache: Path) -> tuple[Path, str]:
    """Its start script and version, by npm; runs with the `node` of the path."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotInstalled("node and npm are not installed")
    folder = cache / "portkey"
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not script.exists():
        print("installing Portkey", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        package = {"dependencies": {"@portkey-ai/gateway": PORTKEY}, "overrides": HONO}
        (folder / "package.json").write_text(json.dumps(package))
        command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts"]
        _run([*command, "--no-audit", "--no-fund"], cache)
    return script, PORTKEY


def _run(command: list[str], cache: Path) -> str:
    cache.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command, cwd=cache, capture_output=True, text=True, check=True, timeout=INSTALL_S
        )
    except FileNotFoundError:
        raise NotInstalled(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{command[0]} took longer than {INSTALL_S} s") from None
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or ["no reason given"]
        raise NotInstalled(f"{Path(command[0]).name} failed: {said[-1][:200]}") from None
    return done.stdout
