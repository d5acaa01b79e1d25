from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.editions import EDITIONS
from medmap_monai.data.phantom import write_cohort


def test_versions_and_editions() -> None:
    result = CliRunner().invoke(app, ["info"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name in ("torch", "monai", *EDITIONS):
        assert name in result.output


def test_studies_and_what_each_has(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    write_cohort(folder, cases=2, shape=(16, 16, 16), seed=0, absent={"last": ["t1", "t1ce"]})
    result = CliRunner().invoke(app, ["info", str(folder)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    lines = {line.split()[1]: line for line in result.output.splitlines() if "BraTS20" in line}
    assert lines["BraTS20_Training_001"].count("yes") == 5
    assert lines["BraTS20_Training_002"].count("yes") == 3


def test_a_bundle(make_bundle: Callable[..., Path]) -> None:
    result = CliRunner().invoke(app, ["info", "--bundle", str(make_bundle())], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for text in (
        "flair, t1ce, t1, t2",
        "evaluate, inference, inference_ts, multi_gpu_train, phantom, train",
        "none yet",
    ):
        assert text in result.output


def test_errors_are_sentences(tmp_path: Path) -> None:
    for arguments in ([str(tmp_path / "nowhere")], ["--bundle", str(tmp_path)]):
        result = CliRunner().invoke(app, ["info", *arguments])
        assert result.exit_code == 1
        assert result.output.startswith("error: ")


def test_help_and_version() -> None:
    assert "0.1.0" in CliRunner().invoke(app, ["--version"]).output
    for command in ("phantom", "split", "predict", "evaluate", "features", "import-weights", "info", "bundle"):
        result = CliRunner().invoke(app, [command, "--help"])
        assert result.exit_code == 0
        assert len(result.output) > 300
