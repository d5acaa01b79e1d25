"""CSV and JSON manifests: one row per case, one column per modality, for layouts that no edition describes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import EDITIONS, get_edition
from medmap_monai.data.file_names import NIFTI_ENDINGS
from medmap_monai.data.studies import StudyScan, combine_errors
from medmap_monai.data.study import ImageSource, Study, StudyError
from medmap_monai.utils.csv_rows import read_csv_rows, read_text
from medmap_monai.utils.files import write_text
from medmap_monai.utils.json_file import parse_json

CASE_ID, LABEL, EDITION = "case_id", "label", "edition"
_CHANNEL = re.compile(r"(?P<path>.+\.nii(?:\.gz)?)#(?P<channel>\d+)")


def read_manifest(path: str | os.PathLike[str], edition: str | Edition | None = None) -> list[Study]:
    """The studies of a manifest, in its order.

    A CSV file has the columns ``case_id``, one per modality (its name), optionally ``label`` and ``edition``; further
    columns are kept as ``Study.extra``. A JSON file holds a list of such objects, or ``{"edition": ..., "cases":
    [...]}``, where the edition is a name, a JSON file, or written out as in one. Paths are relative to the manifest's
    folder. An empty cell is an absent modality; a cell that names a file which does not exist is an error.
    ``file.nii.gz#2`` is channel 2 (last axis) of a 4-D file.

    Args:
        path: the ``.csv`` or ``.json`` file.
        edition: tells modality names and label values; by default the manifest's own ``edition``, else what the
            columns show.

    Raises:
        FileNotFoundError: no such manifest.
        StudyError: a row is unusable; :func:`scan_manifest` gives the usable rows beside the errors.
        ValueError: the manifest as a whole cannot be read.
    """
    scan = scan_manifest(path, edition)
    if scan.errors:
        raise combine_errors(scan.errors)
    return scan.studies


def scan_manifest(path: str | os.PathLike[str], edition: str | Edition | None = None) -> StudyScan:
    """As :func:`read_manifest`, but a bad row does not lose the others."""
    source = Path(os.path.abspath(path))
    if not source.is_file():
        raise FileNotFoundError(f"manifest {source} does not exist")
    placed, named = _rows(source)
    if not placed:
        raise ValueError(f"manifest {source} lists no case")
    rows = [row for _, row in placed]
    chosen = get_edition(edition or _named(named, source) or _edition_of_columns(source, rows))
    _check_columns(source, rows, chosen)
    studies: list[Study] = []
    errors: list[StudyError] = []
    seen: set[str] = set()
    for place, row in placed:
        try:
            studies.append(_study(row, place, source, chosen, seen))
        except StudyError as error:
            errors.append(error)
    return StudyScan(studies, errors, chosen)


def write_manifest(path: str | os.PathLike[str], studies: Iterable[Study]) -> None:
    """Write a CSV or JSON manifest (by the ending of ``path``); files below its folder get relative paths.

    Raises:
        ValueError: no studies, or an ending other than ``.csv`` and ``.json``.
    """
    target = Path(os.path.abspath(path))
    cohort = list(studies)
    if not cohort:
        raise ValueError(f"manifest {target}: there is no study to write")
    names = list(dict.fromkeys(name for study in cohort for name in get_edition(study.edition).modalities))
    extra = list(dict.fromkeys(name for study in cohort for name in study.extra))
    rows = []
    for study in cohort:
        cells = {name: _cell(study.images.get(name), target) for name in names}
        label = _cell(ImageSource(study.label) if study.label else None, target)
        extras = {name: study.extra.get(name, "") for name in extra}
        rows.append({CASE_ID: study.case_id, **cells, LABEL: label, EDITION: str(study.edition), **extras})
    if target.suffix == ".json":
        write_text(target, json.dumps([{k: v for k, v in row.items() if v} for row in rows], indent=1) + "\n")
    elif target.suffix == ".csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(target, buffer.getvalue())
    else:
        raise ValueError(f"manifest {target}: the name must end in .csv or .json")


def _cell(source: ImageSource | None, target: Path) -> str:
    if source is None:
        return ""
    absolute = Path(os.path.abspath(source.path))
    inside = absolute.is_relative_to(target.parent)
    text = absolute.relative_to(target.parent).as_posix() if inside else str(absolute)
    return text if source.channel is None else f"{text}#{source.channel}"


def _named(named: Any, source: Path) -> Any:
    """The edition that a manifest names; a JSON file is looked for beside the manifest."""
    is_file = isinstance(named, str) and named.endswith(".json")
    return str(source.parent / named) if is_file else named


def _rows(source: Path) -> tuple[list[tuple[str, dict[str, str]]], Any]:
    """The rows as text cells, each with its place in the file, and the edition that the manifest names as a whole."""
    text = read_text(source, "manifest")
    named = None
    if source.suffix == ".json":
        content: Any = parse_json(text, f"manifest {source}")
        if isinstance(content, Mapping):
            named, content = content.get(EDITION), content.get("cases")
        if not isinstance(content, list) or not all(isinstance(row, Mapping) for row in content):
            raise ValueError(f'manifest {source} must hold a list of cases, or {{"edition": ..., "cases": [...]}}')
        cells = [{str(k): "" if v is None else str(v).strip() for k, v in row.items()} for row in content]
        rows = [(f"case number {number}", row) for number, row in enumerate(cells, start=1)]
    elif source.suffix == ".csv":
        # spreadsheets of many countries write semicolons
        rows = [(f"line {line}", row) for line, row in read_csv_rows(source, "manifest", text, delimiters=",;\t")]
    else:
        raise ValueError(f"manifest {source} must end in .csv or .json")
    editions = {row[EDITION] for _, row in rows if row.get(EDITION)}
    if len(editions) > 1:
        raise ValueError(f"manifest {source} mixes the editions {sorted(editions)}; one manifest describes one")
    return rows, named or next(iter(editions), None)


def _columns(rows: list[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _edition_of_columns(source: Path, rows: list[dict[str, str]]) -> Edition:
    """The edition whose modalities the columns are; brain studies are read as ``generic``."""
    columns = set(_columns(rows))
    fitting = [EDITIONS[name] for name in ("generic", "myops2020") if columns & set(EDITIONS[name].modalities)]
    fitting.sort(key=lambda edition: -len(columns & set(edition.modalities)))
    shared = [len(columns & set(edition.modalities)) for edition in fitting]
    if not fitting or (len(fitting) > 1 and shared[0] == shared[1]):
        raise ValueError(f"manifest {source} has the columns {sorted(columns)}: name the edition to read them as")
    return fitting[0]


def _check_columns(source: Path, rows: list[dict[str, str]], edition: Edition) -> None:
    columns = _columns(rows)
    if CASE_ID not in columns:
        raise ValueError(f"manifest {source} has no column {CASE_ID}; it has {columns}")
    for name in columns:
        known = name in edition.modalities or name in (CASE_ID, LABEL, EDITION)
        # a misspelt modality would otherwise pass as one that is absent everywhere
        if not known and any(row.get(name, "").split("#")[0].endswith(NIFTI_ENDINGS) for row in rows):
            raise ValueError(
                f"manifest {source}: column {name} lists images, but edition {edition} has the modalities "
                f"{list(edition.modalities)}"
            )


def _study(row: dict[str, str], place: str, source: Path, edition: Edition, seen: set[str]) -> Study:
    case_id = row.get(CASE_ID, "")
    if not case_id:
        raise StudyError(f"({place})", f"column {CASE_ID} is empty; every row needs the name of its case", source)
    if case_id in seen:
        raise StudyError(case_id, f"{place}: listed twice; keep one row of each {CASE_ID}", source)
    if re.search(r"[\\/]", case_id) or case_id in (".", ".."):
        raise StudyError(case_id, f"{place}: a {CASE_ID} names output files, so it may not be a path", source)
    seen.add(case_id)
    images = {
        name: _image(case_id, name, row[name], place, source, edition) for name in edition.modalities if row.get(name)
    }
    for name, image in images.items():
        other = next(known for known, before in images.items() if before == image)
        if other != name:
            raise StudyError(case_id, f"{place}: listed for more than one modality: {other} and {name}", image.path)
    if not images:
        raise StudyError(
            case_id, f"{place}: no modality; expected a file in any of the columns {list(edition.modalities)}", source
        )
    label = _image(case_id, LABEL, row[LABEL], place, source, edition).path if row.get(LABEL) else None
    extra = {k: v for k, v in row.items() if k not in edition.modalities and k not in (CASE_ID, LABEL, EDITION)}
    built_in = EDITIONS.get(edition.name) is edition
    return Study(case_id, images, label, edition.name if built_in else edition, extra)


def _image(case_id: str, name: str, text: str, place: str, source: Path, edition: Edition) -> ImageSource:
    found = _CHANNEL.fullmatch(text)
    path = Path(os.path.abspath(source.parent / (found["path"] if found else text)))
    channel = int(found["channel"]) if found else None
    if channel is None and edition.channels and name in edition.channels:
        channel = edition.channels[name]
    if not path.is_file():
        raise StudyError(
            case_id,
            f"the file of column {name} does not exist; correct the cell, or leave it empty where there is no such "
            f"image ({source}, {place})",
            path,
        )
    return ImageSource(path, channel)
