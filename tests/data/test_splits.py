"""Split files: own CSV and JSON, the published format, names, rates, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmap_monai.data.published_splits import PASSION_HEADER, format_passion, parse_passion
from medmap_monai.data.splits import (
    SplitRow,
    match_case,
    name_numbered_cases,
    numbered_cases,
    parse_rates,
    rates_of_combination,
    read_case_list,
    read_split,
    write_split,
)
from medmap_monai.modalities import BRATS, MYOPS, Modalities

RATES = {"t1": 0.2, "t2": 0.85}
ROWS = [
    SplitRow("a", "train", ("flair", "t1"), 5, RATES),
    SplitRow("b", "val"),
    SplitRow("c, d", "test", ("t2",), None, {}),
]


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"s.{ending}"
    write_split(path, ROWS)
    assert read_split(path) == ROWS
    assert read_split(path, BRATS) == ROWS


def test_csv_is_readable_by_people(tmp_path: Path) -> None:
    write_split(tmp_path / "s.csv", ROWS[:2])
    text = (tmp_path / "s.csv").read_bytes().decode()
    assert text == "case_id,fold,available,seed,rates\na,train,flair+t1,5,t1=0.2 t2=0.85\nb,val,,,\n"


def test_minimal_csv(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("case_id\nx\ny\n")
    assert read_split(tmp_path / "s.csv") == [SplitRow("x"), SplitRow("y")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", "case_id,fold\na,training\n", r"line 2.*'training'.*train, val, test"),
        ("s.csv", "case_id,mask\na,1\n", r"columns \['case_id', 'mask'\].*allowed"),
        ("s.csv", "case_id,fold\na\n", "line 2: 2 cells"),
        ("s.csv", "case_id,rates\na,t1:3\n", "line 2.*t1:3"),
        ("s.csv", "case_id,available\na,flair+dwi\n", r"\['dwi'\].*flair"),
        ("s.csv", "case_id\na\na\n", "a is listed twice"),
        ("s.csv", "case_id\n", "lists no case"),
        ("s.csv", 'case_id\n"' + "x" * 200_000 + "\n", r"s\.csv, line 2: field larger"),
        ("s.csv", f'{",".join(PASSION_HEADER)}\n"' + "x" * 200_000 + "\n", r"s\.csv, line 2: field larger"),
        ("s.json", "[{]", "not valid JSON"),
        ("s.json", '{"a": 1}', "list of cases"),
        ("s.json", '[{"case_id": "a", "available": []}]', "number 1.*at least one modality"),
        ("s.json", '[{"case_id": "a", "mask": 3}]', r"unknown keys \['mask'\]"),
        ("s.json", '[{"fold": "train"}]', "case id"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path / name, BRATS)


def test_absent_file_and_bad_ending(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        read_split(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"\.csv or \.json"):
        write_split(tmp_path / "s.txt", ROWS)
    with pytest.raises(ValueError, match="no case"):
        write_split(tmp_path / "s.csv", [])


def test_case_list(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("# training\nb\n\n a \n")
    assert read_case_list(tmp_path / "train.txt") == ["b", "a"]
    assert read_split(tmp_path / "train.txt") == [SplitRow("b"), SplitRow("a")]
    (tmp_path / "twice.txt").write_text("b\nb\n")
    with pytest.raises(ValueError, match="repeats b"):
        read_case_list(tmp_path / "twice.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        read_case_list(tmp_path / "empty.txt")


def test_published_format_round_trip() -> None:
    subsets = BRATS.subsets()
    text = format_passion([f"HG_{i}" for i in range(15)], subsets)
    lines = text.split("\r\n")
    assert lines[:3] == [
        "data_name,mask_id,mask,pos_mask_ids",
        'HG_0,0,"[False, False, False, True]",[0]',
        'HG_1,1,"[False, True, False, False]",[1]',
    ]
    assert lines[-1] == ""
    assert parse_passion(text) == [(f"HG_{i}", subset) for i, subset in enumerate(subsets)]


def test_published_format_for_other_modalities() -> None:
    assert parse_passion(format_passion(["x"], [("bssfp", "t2")], MYOPS), modalities=MYOPS) == [("x", ("bssfp", "t2"))]


def test_file_written_with_numpy_2(tmp_path: Path) -> None:
    text = 'data_name,mask_id,mask,pos_mask_ids\r\nx,5,"[np.False_, np.True_, np.True_, np.False_]","[1, 2, 5]"\r\n'
    (tmp_path / "p.csv").write_bytes(text.encode())
    assert read_split(tmp_path / "p.csv") == [SplitRow("x", "train", ("t1ce", "t1"))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('x,5,"[False, True]","[1, 2, 5]"', "line 2.*2 entries"),
        ('x,5,"[exit(), True, True, False]","[1, 2, 5]"', "list of True and False"),
        ('x,4,"[False, True, True, False]","[1, 2, 5]"', "mask_id 5.*says 4"),
        ('x,5,"[False, True, True, False]","[1, 5]"', r"\[1, 2, 5\].*\[1, 5\]"),
        ('x,5,"[False, True, True, False]",five', "a list"),
        ('x,14,"[False, False, False, False]","[0]"', "empty subset"),
        ("x,5", "4 cells"),
    ],
)
def test_malformed_published_rows(row: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_passion(f"data_name,mask_id,mask,pos_mask_ids\r\n{row}\r\n")


@given(st.lists(st.sampled_from(Modalities(("a", "b", "c")).subsets()), min_size=1, max_size=8))
def test_published_format_keeps_any_rows(subsets: list[tuple[str, ...]]) -> None:
    order = Modalities(("a", "b", "c"))
    names = [f'case "{i}", x' for i in range(len(subsets))]
    assert parse_passion(format_passion(names, subsets, order), modalities=order) == list(
        zip(names, subsets, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "edition", "rates"),
    [
        ("2468", "brats2020", {"t1": 0.2, "t1ce": 0.4, "flair": 0.6, "t2": 0.8}),
        ("mr1379", "brats2018", {"t1": 0.1, "t1ce": 0.3, "flair": 0.7, "t2": 0.9}),
        ("357", "myops2020", {"bssfp": 0.3, "lge": 0.5, "t2": 0.7}),
    ],
)
def test_combination_names(name: str, edition: str, rates: dict[str, float]) -> None:
    assert rates_of_combination(name, edition) == rates
    assert list(rates_of_combination(name, edition)) == list(rates)


@pytest.mark.parametrize("name", ["246", "24680", "2a68", ""])
def test_bad_combination_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"4 digits.*t1, t1ce, flair, t2"):
        rates_of_combination(name)


def test_parse_rates() -> None:
    assert parse_rates("t1=0.2, t2=.5") == {"t1": 0.2, "t2": 0.5}
    for text in ("t1", "t1=", "t1=x", "t1=1.5", "=3"):
        with pytest.raises(ValueError, match="must look like"):
            parse_rates(text)


def test_match_case() -> None:
    known = {"BraTS20_Training_007", "HG_odd"}
    assert match_case("BraTS20_Training_007", known) == "BraTS20_Training_007"
    assert match_case("HG_BraTS20_Training_007", known) == "BraTS20_Training_007"
    assert match_case("LG_BraTS20_Training_007", known) == "BraTS20_Training_007"
    assert match_case("HG_odd", known) == "HG_odd"
    assert match_case("BraTS20_Training_008", known) is None


def test_numbered_cases() -> None:
    assert numbered_cases(2) == ["#001", "#002"]
    assert numbered_cases(1251)[-1] == "#1251"
    rows = [SplitRow("#002", "val"), SplitRow("#001")]
    assert name_numbered_cases(rows, ["y", "x"]) == [SplitRow("y", "val"), SplitRow("x")]
    assert name_numbered_cases(ROWS, ["anything"]) == ROWS
    for bad, cases in ((rows, ["x"]), ([rows[0], SplitRow("z")], ["x", "y"]), ([rows[0], rows[0]], ["x", "y"])):
        with pytest.raises(ValueError, match="by case number"):
            name_numbered_cases(bad, cases)
