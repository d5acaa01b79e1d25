from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from medmap_monai.cli.main import app
from medmap_monai.zoo.check import CHECKS
from tests.zoo.conftest import NAME

FAST = ["layout", "license", "version"]


def medmap(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bundle", *map(str, arguments)])


def only(*names: str) -> list[str]:
    return [word for name in CHECKS if name not in names for word in ("--skip", name)]


def test_check_prints_a_line_per_check_and_exits_with_the_number_of_failures(bundle: Path, tmp_path: Path) -> None:
    assert medmap("check", bundle, *only(*FAST)).exit_code == 0
    (bundle / "LICENSE").unlink()
    result = medmap("check", bundle, tmp_path / "none", *only(*FAST))
    assert result.exit_code == 3
    lines = [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert lines[: len(CHECKS)] == [
        [{"layout": "FAIL", "license": "FAIL", "version": "PASS"}.get(name, "SKIP"), name] for name in CHECKS
    ]
    assert lines[len(CHECKS) :] == [["FAIL", "layout"]]
    assert result.stdout.endswith("3 failed\n")


def test_check_rejects_an_unknown_name(bundle: Path) -> None:
    result = medmap("check", bundle, "--skip", "licence")
    assert result.exit_code == 2
    assert "licence" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "{bundle}", "--weights", "{bundle}/none.pt"], r"no weights at .*none\.pt"),
        (["pack", "{bundle}", "--weights", "{trained}/models/model.pt"], "does not fit the network"),
        (["pack", "{bundle}", "--weights", "{trained}/models/model.pt", "--export", "tensorrt"], "tensorrt"),
        (["pack", "{trained}/docs", "--weights", "x.pt"], "is not a bundle"),
        (["index", "{bundle}", "--no-installed"], "no package"),
        (["install", NAME, "--from", "{bundle}", "--to", "{bundle}/to"], "cannot read"),
    ],
)
def test_mistakes_are_messages(bundle: Path, trained: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = medmap(*(a.format(bundle=bundle, trained=trained) for a in arguments))
    assert result.exit_code == 1
    assert re.search(message, result.stderr)
    assert "Traceback" not in result.output


def test_index_lists_and_install_names_the_folder(zoo: Path, tmp_path: Path) -> None:
    result = medmap("index", zoo)
    assert result.exit_code == 0
    assert f"{NAME} 0.1.0" in result.stdout
    result = medmap("install", NAME, "--from", zoo, "--to", tmp_path / "to")
    assert result.exit_code == 0
    assert Path(result.stdout.strip()) == tmp_path / "to" / NAME
    again = medmap("install", NAME, "--from", zoo, "--to", tmp_path / "to")
    assert again.exit_code == 1
    assert "--replace" in again.stderr
