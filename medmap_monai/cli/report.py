"""``medmap report``: one page about one evaluation, or several side by side."""

from __future__ import annotations

from pathlib import Path

import typer


def report(
    runs: list[Path] = typer.Argument(..., help="Folders that medmap evaluate wrote."),
    output: Path = typer.Option(Path("report.html"), "--output", "-o", help="The HTML page to write."),
    name: list[str] = typer.Option([], help="Heading of a run, in the order of RUNS. Repeatable (default: folders)."),
    logs: list[Path] = typer.Option(
        [],
        help="Folder with training.csv, balance.csv or features.npz of a run, in the order of RUNS. Repeatable; "
        "the run's own folder is searched in any case.",
    ),
    title: str = typer.Option("", help="Heading of the page."),
    viewer: bool = typer.Option(True, help="Put the interactive viewer into the page, where label maps were kept."),
) -> None:
    """Write a self-contained page: tables, distributions, contribution of each modality, pictures, viewer.

    Figures (PNG, SVG) and the main table (CSV, LaTeX) go to a folder beside the page. Several runs are compared with
    paired tests.

    Examples: medmap report evaluation/ -o report.html ·
    medmap report runs/baseline runs/passion --name baseline --name PASSION -o comparison.html
    """
    from medmap_monai.cli.errors import fail

    try:
        from medmap_monai.report.page import write_report
        from medmap_monai.report.runs import read_run
    except ImportError as error:
        fail(f"reports need the extra 'report' (pip install 'medmap-monai[report]'): {error}")
    for what, given in (("--name", name), ("--logs", logs)):
        if given and len(given) != len(runs):
            fail(f"{len(runs)} runs need {what} as often, got {len(given)}", 2)
    try:
        read = [read_run(folder, name[i] if name else None, logs[i] if logs else None) for i, folder in enumerate(runs)]
        written = write_report(read, output, title, viewer)
    except (OSError, ValueError) as error:
        fail(error)
    typer.echo(f"{written.page} ({written.size / 1e6:.1f} MB); figures and tables in {written.folder}")
