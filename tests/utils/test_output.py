from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from medmap_monai.utils.csv_cells import plain_cell, quoted_cell
from medmap_monai.utils.output import PREDICTIONS_NAME, PredictionTable, read_predictions, read_record, record_path

COLUMNS = ("case_id", "status", "message")


def test_cells_that_a_spreadsheet_would_compute_are_quoted_and_come_back() -> None:
    for text in ("=1+1", "+cmd|' /C calc'!A0", "-a", "@sum", "\tx", "'=1", "''@", "plain", "'plain", "", "a=b"):
        cell = quoted_cell(text)
        assert not cell.startswith(("=", "+", "-", "@", "\t"))
        assert plain_cell(cell) == text
    for number in ("-1.5", "+2e-3", "-.5", "12"):
        assert quoted_cell(number) == number


def test_rows_are_added_and_the_last_of_a_case_counts(tmp_path: Path) -> None:
    table = PredictionTable(tmp_path, COLUMNS)
    table.add({"case_id": "b", "status": "failed", "message": 'no, "really"\nnot'})
    table.add({"case_id": "=a", "status": "ok"})
    table.add({"case_id": "b", "status": "ok"})
    assert read_predictions(tmp_path) == {
        "=a": {"case_id": "=a", "status": "ok", "message": ""},
        "b": {"case_id": "b", "status": "ok", "message": ""},
    }
    table.tidy()
    assert (tmp_path / "predictions.csv").read_text() == "case_id,status,message\n'=a,ok,\nb,ok,\n"


def test_half_a_row_of_a_killed_process_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text("case_id,status,message\na,ok,\nb,o")
    PredictionTable(tmp_path, COLUMNS).add({"case_id": "c", "status": "ok"})
    assert list(read_predictions(tmp_path)) == ["a", "c"]


def test_columns_of_another_bundle_are_kept(tmp_path: Path) -> None:
    PredictionTable(tmp_path, ("case_id", "status", "voxels_scar")).add({"case_id": "a", "voxels_scar": "7"})
    PredictionTable(tmp_path, ("case_id", "status", "voxels_ET")).add({"case_id": "b", "voxels_ET": "3"})
    rows = read_predictions(tmp_path)
    assert (rows["a"]["voxels_scar"], rows["a"]["voxels_ET"], rows["b"]["voxels_ET"]) == ("7", "", "3")


_WRITER = """
import sys
from medmap_monai.utils.output import PredictionTable
table = PredictionTable(sys.argv[1], ("case_id", "status", "message", *sys.argv[3:]))
for number in range(150):
    table.add({"case_id": f"{sys.argv[2]}{number:03d}", "status": "ok", "message": "x" * 50})
table.tidy()
"""


def test_two_processes_lose_no_row(tmp_path: Path) -> None:
    arguments = (["a"], ["b", "voxels_ET"])  # the second one has a column more
    running = [subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), *given]) for given in arguments]
    assert [process.wait() for process in running] == [0, 0]
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert [row["case_id"] for row in csv.DictReader(file)] == [
            *(f"a{number:03d}" for number in range(150)),
            *(f"b{number:03d}" for number in range(150)),
        ]


def test_the_ten_thousandth_row_reads_and_writes_no_other(tmp_path: Path) -> None:
    table = PredictionTable(tmp_path, COLUMNS)
    lines = "".join(f"case_{number:05d},ok,{'x' * 100}\n" for number in range(10_000))
    (tmp_path / "predictions.csv").write_text("case_id,status,message\n" + lines)
    before = (tmp_path / "predictions.csv").stat().st_ino
    for number in range(10_000, 10_050):
        table.add({"case_id": f"case_{number:05d}", "status": "ok"})
    assert (tmp_path / "predictions.csv").stat().st_ino == before  # added to, not written anew
    table.tidy()
    assert len(read_predictions(tmp_path)) == 10_050


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / PREDICTIONS_NAME).write_text('case_id,status\na,"' + "x" * 200_000 + "\n")
    with pytest.raises(ValueError, match=r"predictions\.csv, line 1: field larger.*move it away"):
        read_predictions(tmp_path)


def test_a_record_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path, "a") is None
    for text in ("{", "[]", "[" * 100_000):
        record_path(tmp_path, "a").write_text(text)
        assert read_record(tmp_path, "a") is None
