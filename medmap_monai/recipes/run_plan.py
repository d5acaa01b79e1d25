"""Run the steps of a plan; what is finished stays, what was interrupted continues."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from medmap_monai.recipes.commands import run_command
from medmap_monai.recipes.step import CONTENT, Step
from medmap_monai.utils.files import write_text
from medmap_monai.utils.json_file import read_json

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

STARTED, FINISHED = "started", "finished"


class BusyError(RuntimeError):
    """Another recipe, or a step that an ended one left behind, works in the output folder."""


class ChangedStepError(RuntimeError):
    """A step was started or finished with other settings, another command or other inputs."""


class _Record(NamedTuple):
    state: str
    made_with: dict[str, str]


def run_plan(steps: Sequence[Step], output: Path, roots: Mapping[str, Path]) -> None:
    """Run what is not finished.

    A step is finished when its record says so, everything that it was made with is what the plan says now, and its
    outputs exist. A changed step stops the run before anything is done, unless it is repeatable.

    Args:
        steps: the plan.
        output: folder of all results; one process at a time works in it.
        roots: folders (by name) in whose place records have the name, so that results may move.

    Raises:
        BusyError: the folder is in use.
        ChangedStepError: a step was started or finished with something else, or left no result.
        CommandError: a command ended with an error.
    """
    with _locked(output) as lock:
        for step in steps:
            if not step.repeatable:
                _check(step, _read(step), step.planned(roots))
        for step in steps:
            if state_of(step, roots) == "done":
                print(f"done: {step.name}", flush=True)
            else:
                _run(step, output, roots, lock)


def state_of(step: Step, roots: Mapping[str, Path]) -> str:
    """``done``, ``started``, ``changed`` or ``to do``."""
    try:
        record = _read(step)
        if record is None:
            return "to do"
        _check(step, record, step.planned(roots))
        _check(step, record, step.made_with(roots))
    except FileNotFoundError:
        return "to do"
    except ChangedStepError:
        return "changed"
    return "done" if record.state == FINISHED and all(path.is_file() for path in step.outputs) else "started"


def _run(step: Step, output: Path, roots: Mapping[str, Path], lock: int | None) -> None:
    made_with = step.made_with(roots)
    if not step.repeatable:
        _check(step, _read(step), made_with)
    if step.settings_file is not None:
        write_text(step.settings_file, json.dumps(step.settings, indent=1) + "\n")
    if step.folder is not None:  # only there can an interrupted step leave something that the next start goes on from
        _write(step, STARTED, made_with)
    log = output / "logs" / f"{step.name}.log"
    run_command(step.title, step.command, log=log, keep_open=[] if lock is None else [lock])
    absent = [str(path) for path in step.outputs if not path.is_file()]
    if absent:
        raise ChangedStepError(
            f"step {step.name} ended well but left no {', '.join(absent)}; see {log}. "
            f"If results of an earlier run were deleted by hand, delete {_place(step)} too"
        )
    if step.made_with(roots) != made_with:
        raise ChangedStepError(f"an input of step {step.name} changed while it ran; delete {_place(step)}")
    _write(step, FINISHED, made_with)


def _place(step: Step) -> Path:
    """What to delete to have the step done anew."""
    return step.record if step.folder is None else step.folder


def _read(step: Step) -> _Record | None:
    """The step's record; None where the step never started."""
    if not step.record.is_file():
        return None
    try:
        content = read_json(step.record)
        if content["state"] not in (STARTED, FINISHED):
            raise ValueError(f"unknown state {content['state']}")
        return _Record(content["state"], dict(content["made_with"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ChangedStepError(f"{step.record} is not the record of a step ({error}); delete {_place(step)}") from None


def _write(step: Step, state: str, made_with: Mapping[str, str]) -> None:
    content = {"step": step.name, "state": state, "made_with": made_with}
    write_text(step.record, json.dumps(content, indent=1) + "\n")


def _check(step: Step, record: _Record | None, now: Mapping[str, str]) -> None:
    """Compare with what is recorded; inputs only where ``now`` has them."""
    if record is None:
        return
    inputs = any(name.startswith(CONTENT) for name in now)
    old = {name: fact for name, fact in record.made_with.items() if inputs or not name.startswith(CONTENT)}
    found = [
        _difference(name, old.get(name), now.get(name)) for name in {**old, **now} if old.get(name) != now.get(name)
    ]
    if found:
        raise ChangedStepError(
            f"step {step.name} was {record.state} with something else: {'; '.join(found)}. "
            f"Go back to that, choose another --output, or delete {_place(step)} to have it done anew"
        )


def _difference(name: str, old: str | None, new: str | None) -> str:
    if name.startswith(CONTENT):
        return f"{name} changed"
    shown = ["nothing" if fact is None else fact if len(fact) <= 100 else f"{fact[:97]}..." for fact in (old, new)]
    return f"{name} was {shown[0]}, is now {shown[1]}"


@contextmanager
def _locked(output: Path) -> Iterator[int | None]:
    """Hold the folder; commands inherit the lock, so that one that outlives this process keeps it."""
    output.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield None
        return
    handle = os.open(output / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{output} is in use: another recipe runs there, or a command that an ended one had started. "
                "Wait for it, or end it, and start again"
            ) from None
        yield handle
    finally:
        os.close(handle)
