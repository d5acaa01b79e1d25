"""Markers of started and finished steps: what a step was run with, so that nothing else is ever taken for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmap_monai import __version__
from medmap_monai.recipes.step import Step, content_of
from medmap_monai.utils.files import write_text

STARTED, FINISHED = "started", "finished"
_FORMAT = 1


class ChangedStepError(RuntimeError):
    """A step was started or finished with other settings, another command or other inputs."""


@dataclass(frozen=True)
class Marker:
    """State of a step (``started`` or ``finished``) and everything it was run with."""

    state: str
    made_with: Mapping[str, Any]


class Markers:
    """One JSON file per step in ``folder``, each written atomically.

    Paths in it are written relative to ``roots`` (name -> folder), so that results may move as a whole.

    Args:
        folder: where the markers are.
        roots: folders whose paths are replaced by their name in capitals.
    """

    def __init__(self, folder: Path, roots: Mapping[str, Path]) -> None:
        self.folder = folder
        self.roots = dict(sorted(roots.items(), key=lambda item: -len(str(item[1]))))

    def path(self, step: Step) -> Path:
        """The marker of a step."""
        return self.folder / f"{step.name}.json"

    def read(self, step: Step) -> Marker | None:
        """The step's marker; None where the step never started.

        Raises:
            ChangedStepError: the file is no marker of this version.
        """
        path = self.path(step)
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT or content["state"] not in (STARTED, FINISHED):
                raise ValueError("unknown format")
            return Marker(content["state"], content["made_with"])
        except (ValueError, KeyError, TypeError) as error:
            raise ChangedStepError(f"{path} is not a marker of a step ({error}); see --redo {step.name}") from None

    def write(self, step: Step, state: str, made_with: Mapping[str, Any]) -> None:
        """Write the step's marker."""
        content = {"format": _FORMAT, "step": step.name, "state": state, "made_with": made_with}
        write_text(self.path(step), json.dumps(content, indent=1) + "\n")

    def planned(self, step: Step) -> dict[str, Any]:
        """What the plan says about the step: command, settings and version of this package; needs no input."""
        return json.loads(  # the same types as in a marker that was read
            self._portable(
                json.dumps(
                    {"version": __version__, "command": list(step.command), "settings": dict(step.settings)},
                    default=str,
                )
            )
        )

    def made_with(self, step: Step) -> dict[str, Any]:
        """All that decides the result of the step.

        Raises:
            FileNotFoundError: an input does not exist.
        """
        inputs = {self._portable(str(path)): content_of(path) for path in step.inputs}
        return {**self.planned(step), "inputs": inputs}

    def check_plan(self, step: Step, marker: Marker) -> None:
        """Compare command and settings with those of the marker.

        Raises:
            ChangedStepError: they differ; names each difference.
        """
        self._compare(step, marker, self.planned(step))

    def check(self, step: Step, marker: Marker) -> None:
        """Compare everything, inputs too.

        Raises:
            ChangedStepError: something differs; names each difference.
        """
        self._compare(step, marker, self.made_with(step))

    def _compare(self, step: Step, marker: Marker, now: Mapping[str, Any]) -> None:
        found = [line for key, value in now.items() for line in _differences(key, marker.made_with.get(key), value)]
        if found:
            raise ChangedStepError(
                f"step {step.name} was {marker.state} with something else: {'; '.join(found)}. "
                f"Go back to that, choose another --output, or --redo {step.name} (deletes its results)"
            )

    def _portable(self, text: str) -> str:
        for name, folder in self.roots.items():
            text = text.replace(str(folder), name.upper())
        return text


def _differences(key: str, old: Any, new: Any) -> list[str]:
    """``settings.epochs was 1, is now 2`` for everything that differs."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [line for name in names for line in _differences(f"{key}.{name}", old.get(name), new.get(name))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        return [f"{key} {_option(new, i)} was {_short(a)}, is now {_short(b)}" for i, a, b in pairs]
    if isinstance(old, list) and isinstance(new, list):
        gone, come = [w for w in old if w not in new], [w for w in new if w not in old]
        return [f"{key} lost {_short(gone)} and gained {_short(come)}"]
    if key.startswith("inputs."):
        return [f"the content of {key.removeprefix('inputs.')} changed"]
    return [f"{key} was {_short(old)}, is now {_short(new)}"]


def _option(command: list[Any], index: int) -> str:
    """The option in front of a value, to make the message readable."""
    before = str(command[index - 1]) if index else ""
    return before if before.startswith("-") else f"word {index + 1}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
