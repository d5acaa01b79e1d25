"""Run a command as a user would type it, and say so."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_TAIL = 30  # lines
_PATIENCE = 30.0  # seconds


class CommandError(RuntimeError):
    """A command ended with an error; the message shows the end of what it printed where that went to a log."""


def run_command(
    title: str,
    command: Sequence[str],
    cwd: Path | None = None,
    log: Path | None = None,
    keep_open: Sequence[int] = (),
) -> None:
    """Print and run one command.

    Args:
        title: what it does.
        command: program and arguments; ``python``, ``medmap`` and ``torchrun`` are those of this environment.
        cwd: folder to run it in.
        log: file that gets what the command prints (appended); None shows it.
        keep_open: file descriptors that the command inherits.

    Raises:
        CommandError: it could not be started, or ended with an error.
    """
    where = f"(cd {os.path.relpath(cwd)} && " if cwd else ""
    print(f"\n== {title}\n$ {where}{shlex.join(command)}{')' if cwd else ''}", flush=True)
    if log is not None:
        print(f"   output: {log}", flush=True)
    start = time.perf_counter()
    # the interpreter's own folder first, so that `python` and `medmap` are those of this environment
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # waiting threads sleep instead of spinning: on a busy machine that is the difference between slow and stuck
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PATH": path}
    if log is None:
        _run(command, cwd, environment, None, keep_open)
    else:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(command)}\n")
            file.flush()
            begin = file.tell()
            try:
                _run(command, cwd, environment, file, keep_open)
            except CommandError as error:
                raise CommandError(f"{error}; the end of {log}:\n{_tail(log, begin)}") from None
    print(f"   {time.perf_counter() - start:.0f} s", flush=True)


def _run(
    command: Sequence[str],
    cwd: Path | None,
    environment: dict[str, str],
    output: IO[str] | None,
    keep_open: Sequence[int],
) -> None:
    try:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env=environment,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            pass_fds=tuple(keep_open),
        )
    except OSError as error:
        raise CommandError(f"{command[0]} could not be started: {error}") from error
    try:
        code = process.wait()
    except BaseException:  # this process is to end: so is the command, which may have processes of its own to end
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if code != 0:
        raise CommandError(f"{shlex.join(command)}\nended with {code}")


def _tail(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").splitlines()
    return "\n".join(f"  | {line}" for line in lines[-_TAIL:])
