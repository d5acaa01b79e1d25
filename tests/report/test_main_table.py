from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest

from medmap_monai.modalities import BRATS
from medmap_monai.report.main_table import _tex, main_table, table_csv, table_latex
from medmap_monai.report.runs import EvaluationRun

SUBSETS = ["+".join(subset) for subset in BRATS.subsets()]


def make_run(name: str, shift: float = 0.0, metric: str = "dice", unit: str = "1") -> EvaluationRun:
    """A run whose mean for subset number i is i / 20 + shift."""
    scores = [
        {"subset": s, "region": "WT", "metric": metric, "unit": unit, "mean": i / 20 + shift, "n": 9, "ci": None}
        for i, s in enumerate(SUBSETS)
    ]
    averages = [{"region": "WT", "metric": metric, "mean": 0.35 + shift, "n": 9, "ci": None}]
    summary = {
        "modalities": list(BRATS),
        "subsets": SUBSETS,
        "regions": {"WT": {"classes": [1], "minimum_voxels": 0}},
        "metrics": {metric: unit},
        "scores": scores,
        "averages": averages,
        "n_cases": 9,
    }
    return EvaluationRun(name, Path("."), summary, pd.DataFrame(), [], ())


def test_columns_are_subsets_as_dots_in_the_published_order():
    table = main_table([make_run("a")], "dice")
    assert table.dots["t2"][:3] == [True, False, False]
    assert table.dots["t1ce"][:3] == [False, True, False]
    assert [flags[-1] for flags in table.dots.values()] == [True] * 4
    (row,) = table.rows
    assert [c.text for c in row.cells][:3] == ["0.00", "5.00", "10.00"]
    assert row.average.text == "35.00"
    assert not any(c.best for c in row.cells)  # one run has no rival


@pytest.mark.parametrize(("metric", "winner"), [("dice", "b"), ("hd95", "a")])
def test_the_best_run_is_marked_by_the_direction_of_the_metric(metric, winner):
    table = main_table([make_run("a", metric=metric), make_run("b", 0.1, metric)], metric)
    assert {row.run for row in table.rows for cell in [*row.cells, row.average] if cell.best} == {winner}
    equal = main_table([make_run("a"), make_run("b")], "dice")
    assert not any(cell.best for row in equal.rows for cell in row.cells)


def test_csv_reads_back():
    rows = list(csv.DictReader(io.StringIO(table_csv(main_table([make_run("a"), make_run("b", -0.1)], "dice")))))
    assert rows[0]["flair+t1ce+t1+t2"] == "70.00"
    assert rows[1]["t2"] == "-10.00"
    assert (rows[1]["run"], rows[1]["unit"], rows[1]["average"]) == ("b", "%", "25.00")


def test_latex_has_as_many_cells_in_every_row():
    text = table_latex(main_table([make_run("a_1"), make_run("b", 0.1)], "dice"), synthetic=True)
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 4 + 2
    for line in lines[:4]:
        assert line.count("&") == 16
        assert line.count(r"\bullet") + line.count(r"\circ") == 15
    assert all(line.count("&") == 17 for line in lines[4:])
    assert r"a\_1" in lines[4]
    assert lines[5].count(r"\textbf") == 16
    assert "SYNTHETIC" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P^k_mix, 50 %", r"P\textasciicircum{}k\_mix, 50 \%"),
        (r"a\b & #1 ~ $x", r"a\textbackslash{}b \& \#1 \textasciitilde{} \$x"),
        ("\N{MINUS SIGN}0.1", "$-$0.1"),
    ],
)
def test_names_are_escaped_for_latex(text: str, expected: str) -> None:
    assert _tex(text) == expected
