"""``medmap info``: what is installed, what a folder of studies holds, what a bundle needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medmap_monai.utils.counted import counted

_READABLE = 160  # columns; in a narrower one, or a pipe, names would be cut that are there to be copied

if TYPE_CHECKING:
    from rich.console import Console


def info(
    studies: Path | None = typer.Argument(None, help="A study, a folder of studies or a manifest to look at."),
    bundle: Path | None = typer.Option(None, "--bundle", "-b", help="A bundle to look at: folder or name."),
    bundles: bool = typer.Option(False, "--bundles", help="List the bundles that came with this package."),
    edition: str | None = typer.Option(None, help="Edition of the studies (default: detected)."),
    strict: bool = typer.Option(False, "--strict", help="A NIfTI file that is not used is an error."),
) -> None:
    """Show versions and data-set editions; or which modalities studies have; or what a bundle is.

    Of studies, every NIfTI file is listed with what it was read as, or why it is not used. The exit code is 1 when
    a study cannot be used.

    Examples: medmap info · medmap info studies/ · medmap info --bundles · medmap info --bundle brats_unet_dropout
    """
    from rich.console import Console

    from medmap_monai.cli.errors import fail

    console = Console()
    try:
        if studies is not None:
            _show_studies(console, studies, edition, strict)
        if bundles:
            _show_bundles(console)
        if bundle is not None:
            _show_bundle(console, bundle)
    except (OSError, ValueError) as error:
        fail(error)
    if studies is None and bundle is None and not bundles:
        _show_installation(console)


def _show_installation(console: Console) -> None:
    from importlib.metadata import PackageNotFoundError, version

    from rich.table import Table

    from medmap_monai.data.editions import EDITIONS

    names = ("medmap-monai", "torch", "monai", "pytorch-ignite", "numpy", "nibabel", "SimpleITK")
    for name in names:
        try:
            console.print(f"{name:16} {version(name)}")
        except PackageNotFoundError:
            console.print(f"{name:16} not installed")
    table = Table("edition", "data set", "modalities", "label values -> classes")
    for edition in EDITIONS.values():
        labels = ", ".join(f"{value}: {edition.classes[index]}" for value, index in edition.labels.items())
        table.add_row(edition.name, edition.title, " ".join(edition.modalities), labels)
    console.print(table)


def _show_studies(console: Console, source: Path, edition: str | None, strict: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from medmap_monai.cli.errors import fail
    from medmap_monai.cli.reading import unused_lines
    from medmap_monai.data.cohort import scan_cohort

    scan = scan_cohort(source, edition)
    table = Table("case", *scan.edition.modalities, "label", title=escape(f"{source}: {scan.edition.title}"))
    for study in scan.studies:
        marks = ["yes" if name in study.images else "-" for name in scan.edition.modalities]
        table.add_row(escape(study.case_id), *marks, "yes" if study.label else "-")
    console.print(table)
    for file in scan.files:
        if file.used:
            typer.echo(f"{file.role:8} {os.path.relpath(file.path, source)} ({file.case_id})")
    unused = unused_lines(scan, source)
    if unused:
        typer.secho("\n".join(["not used:", *unused]), fg=typer.colors.YELLOW)
    for note in scan.notes:
        typer.secho(note, fg=typer.colors.YELLOW)
    for error in scan.errors:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
    if scan.errors:
        raise typer.Exit(1)
    if strict and unused:
        fail(f"{counted(len(unused), 'NIfTI file is', 'NIfTI files are')} not used (--strict)")


def _show_bundles(console: Console) -> None:
    from rich import box
    from rich.table import Table

    from medmap_monai.utils.find_bundle import known_bundles
    from medmap_monai.zoo.bundle_table import bundle_row

    names = ("name", "task", "modalities", "regions", "weights", "Dice, complete", "Dice, worst single", "licence")
    table = Table(*names, box=box.SIMPLE)
    for folder in known_bundles().values():
        row = bundle_row(folder)
        complete = ", ".join(f"{region} {value:.2f}" for region, value in row.complete.items())
        worst = ", ".join(f"{region} {value:.2f} ({name})" for region, (value, name) in row.worst.items())
        measured = f"{complete}; {row.evaluated_on}" if complete else "-"
        weights = "yes" if row.weights else "no"
        cells = (row.name, row.task, " ".join(row.modalities), " ".join(row.regions), weights)
        table.add_row(*cells, measured, worst or "-", row.license)
    console.width = max(console.width, _READABLE)
    console.print(table)


def _show_bundle(console: Console, bundle: Path) -> None:
    from medmap_monai.utils.find_bundle import find_bundle
    from medmap_monai.utils.json_file import read_json

    root = find_bundle(bundle)
    metadata = root / "configs" / "metadata.json"
    if not metadata.is_file():
        raise FileNotFoundError(f"{root} is not a bundle: it has no {metadata.relative_to(root)}")
    content = read_json(metadata)
    try:
        heading = f"[bold]{content.get('name', root.name)}[/bold] {content['version']}\n{content['description']}"
        formats = content["network_data_format"]
        image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
        channels = [", ".join(part.get("channel_def", {}).values()) for part in (image, pred)]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{metadata} is not the metadata of a bundle ({type(error).__name__}: {error}); medmap bundle check {root} "
            "names everything that is missing"
        ) from error
    console.print(f"{heading}\nmodalities  {channels[0]}\nclasses     {channels[1]}")
    configs = sorted(p.stem for p in (root / "configs").glob("*.json") if p.stem != "metadata")
    console.print(f"configs     {', '.join(configs)}")
    weights = root / "models" / "model.pt"
    size = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else "none yet (train the bundle first)"
    console.print(f"weights     {size}")
