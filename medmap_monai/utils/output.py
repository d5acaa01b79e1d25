"""Where predictions go: names of output files, and the table of results that several processes may write at once."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from medmap_monai.utils.csv_cells import plain_cell, quoted_row
from medmap_monai.utils.files import remove_stale, utf8, write_text
from medmap_monai.utils.json_file import read_own_record

PREDICTIONS_NAME = "predictions.csv"
_LOCK = ".predictions.lock"
_KEY = "case_id"


def label_map_path(folder: str | os.PathLike[str], case_id: str) -> Path:
    """The label map that a prediction of ``case_id`` writes into ``folder``."""
    return Path(folder) / f"{case_id}_seg.nii.gz"


def record_path(folder: str | os.PathLike[str], case_id: str) -> Path:
    """The JSON file beside the label map that says where it comes from."""
    return Path(folder) / f"{case_id}_seg.json"


def is_results_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether predictions were written into ``folder``: what lies there is no study and no label."""
    return (Path(folder) / PREDICTIONS_NAME).is_file()


def read_record(folder: str | os.PathLike[str], case_id: str) -> dict[str, Any] | None:
    """What :func:`record_path` holds; None where there is none, or it cannot be read."""
    return read_own_record(record_path(folder, case_id))


def read_predictions(folder: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """The rows of ``predictions.csv`` in ``folder`` by case id; none where there is no such file."""
    path = Path(folder) / PREDICTIONS_NAME
    return _read(path)[1] if path.is_file() else {}


class PredictionTable:
    """``predictions.csv`` of one output folder: a row per case, added as cases finish.

    Adding a row takes as long for the ten-thousandth as for the first. A lock keeps several processes apart, whose
    columns may differ; a case that is done again has two rows until :meth:`tidy`, and readers take the later one.

    Args:
        folder: output folder.
        columns: names in the order of the file, ``case_id`` first.
    """

    def __init__(self, folder: str | os.PathLike[str], columns: Sequence[str]) -> None:
        self.path = Path(folder) / PREDICTIONS_NAME
        self.columns = tuple(columns)
        self._lock = FileLock(self.path.parent / _LOCK)

    def add(self, row: Mapping[str, str]) -> None:
        """Add the row of a case; columns that it lacks stay empty."""
        with self._lock:
            header = self._usable_header()
            if header is None:
                self._write(row)
                return
            with self.path.open("ab") as file:  # one write, at the end: nothing can come between its bytes
                file.write(utf8(_text([[row.get(name, "") for name in header]])))

    def tidy(self) -> None:
        """One row per case, sorted by case id."""
        with self._lock:
            self._write()

    def _usable_header(self) -> tuple[str, ...] | None:
        """The file's columns, when a row of this process can be put at its end."""
        if not self.path.is_file():
            return None
        with self.path.open("rb") as file:
            header = tuple(next(csv.reader([file.readline().decode("utf-8", "replace")]), []))
            file.seek(-1, os.SEEK_END) if file.seek(0, os.SEEK_END) else None
            whole = file.read(1) == b"\n"  # a process that was killed may have left half a row
        return header if whole and set(self.columns) <= set(header) else None

    def _write(self, row: Mapping[str, str] | None = None) -> None:
        """Write the file anew, with every column that it or this process has."""
        header, rows = _read(self.path) if self.path.is_file() else ((), {})
        columns = [*self.columns, *(name for name in header if name not in self.columns)]
        if row is not None:
            rows[row[_KEY]] = dict(row)
        cells = [[rows[case].get(name, "") for name in columns] for case in sorted(rows)]
        write_text(self.path, _text([columns, *cells]))


def _read(path: Path) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """Columns, and the last whole row of every case."""
    rows: dict[str, dict[str, str]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            columns = tuple(reader.fieldnames or ())
            for row in reader:
                if row.get(_KEY) and None not in row and None not in row.values():
                    cells = {name: plain_cell(cell) for name, cell in row.items()}
                    rows.pop(cells[_KEY], None)
                    rows[cells[_KEY]] = cells
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {reader.line_num}: {error}; it is damaged: move it away, its rows are made again from "
                "the records beside it"
            ) from error
    return columns, rows


def _text(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(quoted_row(row) for row in rows)
    return text.getvalue()


def require_writable(folder: str | os.PathLike[str]) -> Path:
    """Create ``folder`` where needed, prove that files can be written there, and clear what killed runs left.

    Raises:
        OSError: names the folder and what to do.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(f"output folder {path} is not writable ({error.strerror or error}); choose another") from error
    remove_stale(path)
    return path
