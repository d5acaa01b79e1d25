"""How the files of a folder were read, for people: before a run, and in ``medmap info``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medmap_monai.utils.counted import counted

if TYPE_CHECKING:
    from medmap_monai.data.studies import StudyScan

_SHOWN = 10


def tell_unused(source: Path, edition: str | None, strict: bool) -> None:
    """Say which NIfTI files of ``source`` a run will not use, and what else was noticed; end it under ``strict``.

    A source that cannot be read at all is left to the run, which says so.
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.data.cohort import scan_cohort

    try:
        scan = scan_cohort(source, edition)
    except (OSError, ValueError):
        return
    for note in scan.notes:
        typer.secho(note, fg=typer.colors.YELLOW, err=True)
    lines = unused_lines(scan, source)
    if not lines:
        return
    more = [f"  ... and {len(lines) - _SHOWN} more; medmap info {source} lists them"] if len(lines) > _SHOWN else []
    text = "\n".join([f"{counted(len(lines), 'NIfTI file is', 'NIfTI files are')} not used:", *lines[:_SHOWN], *more])
    if strict:
        fail(f"{text}\n(--strict: nothing was done)")
    typer.secho(text, fg=typer.colors.YELLOW, err=True)


def unused_lines(scan: StudyScan, source: Path) -> list[str]:
    """One line per file that is part of no study: its path below ``source``, and why."""
    return [f"  {os.path.relpath(file.path, source)}: {file.reason}" for file in scan.unused]
