"""``medmap split``."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from medmap_monai.cli.split import split
from medmap_monai.data.splits import read_split

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT.parent / "shared" / "published_splits"
SPLITS = ROOT / "data_splits"


def _run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(split)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def case_list(tmp_path: Path) -> Path:
    path = tmp_path / "train.txt"
    path.write_text("".join(f"case_{number:02d}\n" for number in range(40)))
    return path


def test_folds_and_rates(case_list: Path, tmp_path: Path) -> None:
    result = _run(
        *("--cases", case_list, "--val", 4, "--test", 0.1, "--seed", 2),
        *("--missing-rates", "t2=0.8,t1=0.2", "--output", tmp_path / "s.csv"),
    )
    assert result.exit_code == 0, result.output
    assert "40 of 40 cases: train 32, val 4, test 4" in result.output
    assert "nominal missing" in result.output
    rows = read_split(tmp_path / "s.csv")
    missing = sum("t2" not in (row.available or ()) for row in rows if row.fold == "train")
    assert f"{missing / 32:.3f}" in result.output
    assert {row.seed for row in rows} == {2}
    assert rows[0].rates == {"t1": 0.2, "t1ce": 0.0, "flair": 0.0, "t2": 0.8}


def test_order_of_rates_on_the_command_line_does_not_matter(case_list: Path, tmp_path: Path) -> None:
    for name, rates in (("a.csv", "t1=0.2,t2=0.8"), ("b.csv", "t2=0.8,t1=0.2")):
        assert _run("--cases", case_list, "--missing-rates", rates, "--output", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published files are not part of this repository")
def test_published_file_from_its_case_list(tmp_path: Path) -> None:
    result = _run(
        *("--cases", PUBLISHED / "train.txt", "--combination", "2468", "--compat", "passion"),
        *("--output", tmp_path / "o.csv"),
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "o.csv").read_bytes() == (PUBLISHED / "Brats2020_imb_split_mr2468.csv").read_bytes()
    assert "184 of 219" in result.output


def test_published_format_without_the_published_files(case_list: Path, tmp_path: Path) -> None:
    result = _run("--cases", case_list, "--combination", 2468, "--compat", "passion", "--output", tmp_path / "o.csv")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "o.csv").read_bytes().split(b"\r\n")
    assert lines[:2] == [b"data_name,mask_id,mask,pos_mask_ids", b'case_00,5,"[False, True, True, False]","[1, 2, 5]"']
    assert len(lines) == 42


def test_strata(case_list: Path, tmp_path: Path) -> None:
    (tmp_path / "grade.csv").write_text(
        "id,grade\n" + "".join(f"case_{n:02d},{'LGG' if n < 8 else 'HGG'}\n" for n in range(40))
    )
    result = _run(
        *("--cases", case_list, "--val", 0.25, "--strata", tmp_path / "grade.csv"),
        *("--strata-columns", "id,grade", "--output", tmp_path / "s.json"),
    )
    assert result.exit_code == 0, result.output
    low = [row.fold for row in read_split(tmp_path / "s.json") if row.case_id < "case_08"]
    assert sorted(low) == ["train"] * 6 + ["val"] * 2
    (tmp_path / "grade.csv").write_text("case_id,stratum\ncase_00,LGG\n")
    result = _run(
        "--cases", case_list, "--val", 0.25, "--strata", tmp_path / "grade.csv", "--output", tmp_path / "t.csv"
    )
    assert result.exit_code == 1
    assert "grade.csv has no row for 39 of 40 cases, such as case_01; add a row with its case_id" in result.output


def test_cases_of_a_data_folder(tmp_path: Path) -> None:
    for case in ("a", "b", "c"):
        for name in ("flair", "t1ce", "t1", "t2"):
            path = tmp_path / "data" / case / f"{case}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    result = _run("--cases", tmp_path / "data", "--val", 1, "--output", tmp_path / "s.csv")
    assert result.exit_code == 0, result.output
    assert sorted(row.case_id for row in read_split(tmp_path / "s.csv")) == ["a", "b", "c"]
    (tmp_path / "data" / "b" / "b_t1.nii.gz").unlink()
    result = _run("--cases", tmp_path / "data", "--combination", 2468, "--output", tmp_path / "s.csv")
    assert result.exit_code == 1
    assert "case b has no t1 on disk" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--combination", "246"], "4 digits"),
        (["--combination", "2468", "--missing-rates", "t1=0.1"], "not both"),
        (["--missing-rates", "dwi=0.1"], "dwi"),
        (["--edition", "brats1999"], "allowed are brats2018"),
        (["--val", "30", "--test", "20"], "40 cases exist"),
        (["--compat", "nnunet", "--combination", "2468"], "allowed is passion"),
        (["--compat", "passion"], "needs --combination"),
        (["--compat", "passion", "--combination", "2468", "--val", "3"], "one fold"),
        (["--strata-columns", "a", "--strata", "x.csv"], "two names"),
        (["--strata", "gone.csv"], "gone.csv does not exist"),
        (["--withhold-from", "tune", "--combination", "2468"], "tune"),
        (["--allocation", "magic", "--combination", "2468"], "expected, independent"),
    ],
)
def test_bad_arguments_end_with_a_message(case_list: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = _run("--cases", case_list, "--output", tmp_path / "o.csv", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "o.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (
            "--cases brats2020/cases.txt --train 219 --val 50 --test 100 --seed 1 --combination 8852",
            "brats2020/mr8852.csv",
        ),
        (
            "--cases 285 --edition brats2018 --train 199 --val 29 --test 57 --seed 3 --combination 1379",
            "brats2018/mr1379_fold3.json",
        ),
        (
            "--cases 1251 --edition brats2023 --train 875 --val 125 --test 251 --seed 1 --combination 2468",
            "brats2023/mr2468.csv",
        ),
        (
            "--cases myops2020/cases.txt --edition myops2020 --train 20 --test 5 --seed 1 --combination 537",
            "myops2020/mr537.json",
        ),
    ],
)
def test_files_of_the_repository_come_out_again(
    arguments: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(SPLITS)
    output = tmp_path / Path(name).name
    result = _run(*arguments.split(), "--output", output)
    assert result.exit_code == 0, result.output
    assert output.read_bytes() == (SPLITS / name).read_bytes()
