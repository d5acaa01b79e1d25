from __future__ import annotations

import typer
from typer.testing import CliRunner

from medmap_monai.cli.report import report


def run(*arguments):
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_bad_arguments_are_named(tmp_path):
    result = run(tmp_path / "absent", "-o", tmp_path / "page.html")
    assert result.exit_code == 1
    assert "not a folder" in result.output
    result = run(tmp_path, "--name", "a", "--name", "b")
    assert result.exit_code == 2
    assert "--name" in result.output
    result = run(tmp_path, "-o", tmp_path / "page.html")
    assert result.exit_code == 1
    assert "no finished evaluation" in result.output
    assert not (tmp_path / "page.html").exists()
