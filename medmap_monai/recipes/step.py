"""One step of a recipe: a command, what it needs, what it leaves, and the record of what it was run with."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmap_monai import __version__
from medmap_monai.data.file_names import NIFTI_ENDINGS
from medmap_monai.recipes.cost import Cost
from medmap_monai.utils.files import file_sha256

RECORD = "step.json"
CONTENT = "the content of "


@dataclass(frozen=True)
class Step:
    """One command of a recipe.

    name: unique, a relative path; names the log.
    title: what the step does.
    command: program and arguments, as a user would type them.
    inputs: files and folders whose content decides the result.
    outputs: files that exist when the step is done.
    folder: what belongs to this step alone: what an interruption leaves there is continued, and who deletes it has the
        step done anew. Without one a step writes its outputs at once or not at all.
    settings_file, settings: a JSON file that the command reads, written just before it runs.
    cost: what it costs.
    repeatable: cheap and made from finished results only, so it runs again when something changed. Of every other
        step a change is an error.
    """

    name: str
    title: str
    command: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    folder: Path | None = None
    settings_file: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    repeatable: bool = False

    @property
    def shown(self) -> str:
        """The command as one line for a shell."""
        return shlex.join(self.command)

    @property
    def record(self) -> Path:
        """The file that says what the step was run with; it lies, moves and goes with the results."""
        first = self.outputs[0]
        return first.with_name(f"{first.name}.{RECORD}") if self.folder is None else self.folder / RECORD

    def planned(self, roots: Mapping[str, Path]) -> dict[str, str]:
        """Version, options and settings, by name; paths below ``roots`` (name -> folder) start with the root's name.

        What is recorded thus holds wherever the results are moved to.
        """
        facts = {"version": __version__}
        key = "command"
        for word in self.command:
            if word.startswith("--"):
                key = f"command {word}"
                facts.setdefault(key, "")
            else:
                facts[key] = f"{facts.get(key, '')} {word}".strip()
        facts |= {f"settings.{name}": json.dumps(value, default=str) for name, value in self.settings.items()}
        return {name: _portable(fact, roots) for name, fact in facts.items()}

    def made_with(self, roots: Mapping[str, Path]) -> dict[str, str]:
        """All that decides the result: what is planned, and the content of the inputs.

        Raises:
            FileNotFoundError: an input does not exist.
        """
        inputs = {f"{CONTENT}{_portable(str(path), roots)}": content_of(path) for path in self.inputs}
        return {**self.planned(roots), **inputs}


def _portable(text: str, roots: Mapping[str, Path]) -> str:
    for name, folder in sorted(roots.items(), key=lambda item: -len(str(item[1]))):
        text = text.replace(str(folder), name.upper())
    return text


def content_of(path: Path) -> str:
    """What identifies the content of an input: a file's SHA-256; of a folder of studies names and sizes of its images.

    The images are not read for this, so one that was exchanged for another of the same size goes unseen.

    Raises:
        FileNotFoundError: the input does not exist.
    """
    if path.is_dir():
        digest = hashlib.sha256()
        for parent, folders, files in os.walk(path):
            folders.sort()
            for name in sorted(name for name in files if name.endswith(NIFTI_ENDINGS)):
                file = Path(parent, name)
                digest.update(f"{file.relative_to(path).as_posix()}|{file.stat().st_size}\n".encode())
        return "folder:" + digest.hexdigest()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    return "sha256:" + file_sha256(path)
