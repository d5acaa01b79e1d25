"""Run the steps of a plan; what is finished stays, what was interrupted continues."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medmap_monai.recipes.commands import run_command
from medmap_monai.recipes.markers import FINISHED, STARTED, ChangedStepError, Markers
from medmap_monai.recipes.step import Step
from medmap_monai.utils.files import write_text

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]


class BusyError(RuntimeError):
    """Another recipe, or a step that an ended one left behind, works in the output folder."""


def run_plan(steps: Sequence[Step], output: Path, markers: Markers) -> None:
    """Run what is not finished.

    A step is finished when its marker says so, everything that it was made with is what the plan says now, and its
    outputs exist. A changed step stops the run before anything is done, unless it is repeatable.

    Args:
        steps: the plan.
        output: folder of all results; one process at a time works in it.
        markers: markers of the steps.

    Raises:
        BusyError: the folder is in use.
        ChangedStepError: a step was started or finished with something else, or left no result.
        CommandError: a command ended with an error.
    """
    with _locked(output) as lock:
        for step in steps:
            marker = markers.read(step)
            if marker is not None and not step.repeatable:
                markers.check_plan(step, marker)
        for step in steps:
            if is_finished(step, markers):
                print(f"done: {step.name}", flush=True)
                continue
            _run(step, output, markers, lock)


def is_finished(step: Step, markers: Markers) -> bool:
    """Whether nothing is left to do.

    Raises:
        ChangedStepError: it was started or finished with something else, and is not repeatable.
    """
    marker = markers.read(step)
    if marker is None:
        return False
    try:
        markers.check(step, marker)
    except ChangedStepError:
        if step.repeatable:
            return False
        raise
    return marker.state == FINISHED and all(path.is_file() for path in step.outputs)


def state_of(step: Step, markers: Markers) -> str:
    """``done``, ``started``, ``changed`` or ``to do``, for a plan that is only shown."""
    try:
        marker = markers.read(step)
        if marker is None:
            return "to do"
        markers.check_plan(step, marker)
        markers.check(step, marker)
        return "done" if is_finished(step, markers) else "started"
    except FileNotFoundError:
        return "to do"
    except ChangedStepError:
        return "changed"


def redo(names: Sequence[str], steps: Sequence[Step], output: Path, markers: Markers) -> list[Step]:
    """Forget steps and all that was made from their results; delete those results.

    Args:
        names: names of steps, or beginnings of names that end at a ``/``.
        steps: the plan.
        output: only what lies below is deleted.
        markers: markers of the steps.

    Returns:
        the steps that will run again.

    Raises:
        BusyError: the folder is in use.
        ValueError: a name fits no step.
    """
    chosen: list[Step] = []
    for name in names:
        fitting = [step for step in steps if step.name == name or step.name.startswith(name.rstrip("/") + "/")]
        if not fitting:
            raise ValueError(f"--redo {name}: no such step; see --dry-run")
        chosen += fitting
    with _locked(output):
        again: list[Step] = []
        made: set[Path] = set()
        for step in steps:  # a plan lists every step after those that it needs
            if step in chosen or any(path == old or old in path.parents for path in step.inputs for old in made):
                again.append(step)
                made.update(step.outputs)
                made.update([step.folder] if step.folder else [])
        for step in again:
            markers.path(step).unlink(missing_ok=True)
            for path in step.outputs:
                if path.is_relative_to(output):
                    path.unlink(missing_ok=True)
            if step.folder is not None and step.folder.is_relative_to(output):
                shutil.rmtree(step.folder, ignore_errors=True)
    return again


def _run(step: Step, output: Path, markers: Markers, lock: int | None) -> None:
    made_with = markers.made_with(step)
    if step.settings_file is not None:
        write_text(step.settings_file, json.dumps(step.settings, indent=1) + "\n")
    if step.folder is not None:  # only there can an interrupted step leave something that the next start goes on from
        markers.write(step, STARTED, made_with)
    log = output / "logs" / f"{step.name}.log"
    run_command(step.title, step.command, log=log, keep_open=[] if lock is None else [lock])
    absent = [str(path) for path in step.outputs if not path.is_file()]
    if absent:
        raise ChangedStepError(
            f"step {step.name} ended well but left no {', '.join(absent)}; see {log}. "
            f"If results of an earlier run were deleted by hand, start it anew with --redo {step.name}"
        )
    if markers.made_with(step) != made_with:
        raise ChangedStepError(f"an input of step {step.name} changed while it ran; --redo {step.name}")
    markers.write(step, FINISHED, made_with)


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
