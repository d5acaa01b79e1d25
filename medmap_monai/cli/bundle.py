"""``medmap bundle``: make bundles from their source; check, pack, index and install them."""

from __future__ import annotations

from pathlib import Path

import typer

from medmap_monai.utils.counted import counted

app = typer.Typer(help="Make bundles, check them, and share them through a model zoo.", no_args_is_help=True)

_MOST = 100  # exit codes beyond 125 have meanings of their own


@app.command()
def build(
    sources: list[Path] = typer.Argument(..., help="Files NAME.json, or folders of them."),
    check: bool = typer.Option(
        False, "--check", help="Write nothing; exit with 1 where a folder is not as its source says."
    ),
) -> None:
    """Write the folder NAME beside every NAME.json: the bundle that this short file describes.

    Weights, and configurations that the source does not give, are left alone.

    Example: medmap bundle build bundles/
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.zoo.build import build_bundle, differences

    files = [file for path in sources for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not files:
        fail(f"no file NAME.json in {', '.join(map(str, sources))}", 2)
    found = 0
    for file in files:
        try:
            lines = differences(file) if check else [f"wrote {path}" for path in build_bundle(file)]
        except (OSError, ValueError) as error:
            fail(error)
        found += len(lines) if check else 0
        for line in lines:
            typer.echo(line)
    typer.echo(
        f"{counted(len(files), 'bundle')}, {counted(found, 'difference')}"
        if check
        else counted(len(files), "bundle is as its source says", "bundles are as their sources say")
    )
    if found:
        raise typer.Exit(1)


@app.command()
def new(
    name: str = typer.Argument(..., help="Name of the bundle."),
    edition: Path | None = typer.Option(None, help="JSON file with names, labels and regions of the data."),
    modalities: str | None = typer.Option(None, help="Instead of it, in channel order: ct,pet"),
    classes: str | None = typer.Option(None, help="With --modalities, without the background: tumour,node"),
    network: str = typer.Option("unet", help="A network of this package, such as unet or rfnet."),
    method: str = typer.Option("dropout", help="dropout, passion, dmaf, ...; with medmap upon it: passion,medmap."),
    loss: str | None = typer.Option(None, help="dice_ce or weighted_ce_dice (default: what the method works with)."),
    slices: bool = typer.Option(False, "--slices", help="With --modalities: a two-dimensional network on slices."),
    roi_size: str | None = typer.Option(None, help="Window in voxels, as 96,96,96."),
    folder: Path = typer.Option(Path(), help="Where NAME.json and the folder NAME go."),
) -> None:
    """Start a bundle for a task of your own: a short file to edit, and the folder that `build` makes of it.

    With --modalities, files are CASE_ct.nii.gz, CASE_pet.nii.gz and, for training, CASE_seg.nii.gz with labels 1, 2...

    Example: medmap bundle new head_neck --edition head_neck_edition.json --network unet --method dropout
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.zoo.new import new_bundle, simple_edition

    def parts(text: str) -> list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]

    if (edition is None) == (modalities is None or classes is None):
        fail("give --edition FILE.json, or --modalities and --classes", 2)
    try:
        window = None if roi_size is None else [int(number) for number in parts(roi_size)]
        names, labels = parts(modalities or ""), parts(classes or "")
        described = edition or simple_edition(name, names, labels, slices)
        path = new_bundle(name, folder, described, network, parts(method), loss, window)
    except (OSError, ValueError) as error:
        fail(error)
    typer.echo(f"{path} is the bundle's source; edit it, then: medmap bundle build {path}")
    typer.echo(f"{path.with_suffix('')} is the bundle")


@app.command()
def check(
    folders: list[Path] = typer.Argument(..., help="Folders of bundles."),
    skip: list[str] = typer.Option([], help="Leave out a check, such as 'onnx' (the slow one). Repeatable."),
) -> None:
    """Make the zoo's checks on bundles, offline: one PASS, FAIL or SKIP line per check.

    The exit code is the number of FAIL lines (at most 100).

    Example: medmap bundle check bundles/*
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.zoo.check import Status, check_bundle

    failures = 0
    for folder in folders:
        typer.echo(f"{folder}")
        try:
            for result in check_bundle(folder, skip):
                colour = {Status.PASS: typer.colors.GREEN, Status.FAIL: typer.colors.RED}.get(result.status)
                typer.secho(f"  {result}", fg=colour)
                failures += result.status is Status.FAIL
        except (FileNotFoundError, ValueError) as error:
            if isinstance(error, ValueError):
                fail(error, 2)
            typer.secho(f"  FAIL {'layout':<18} {error}", fg=typer.colors.RED)
            failures += 1
    typer.echo(f"{failures} failed")
    raise typer.Exit(min(failures, _MOST))


@app.command()
def pack(
    folder: Path = typer.Argument(..., help="Folder of the bundle."),
    weights: Path = typer.Option(..., help="model.pt of a training."),
    export: str | None = typer.Option(None, help="Comma-separated: torchscript, onnx."),
    summary: Path | None = typer.Option(None, help="summary.json of an evaluation of these weights."),
    overlay: str | None = typer.Option(
        None, help="Configuration with which the weights were trained, such as 'phantom'."
    ),
    output: Path = typer.Option(Path(), "--output", "-o", help="Folder for the package."),
    replace: bool = typer.Option(False, help="Overwrite a package of this version that has other content."),
) -> None:
    """Pack a bundle and its weights into NAME_vVERSION.zip, with its sha256 beside it.

    Example: medmap bundle pack bundles/brats_unet_dropout --weights model.pt --summary evaluation/summary.json
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.zoo.export import ExportError
    from medmap_monai.zoo.pack import pack_bundle

    exports = [name.strip() for name in export.split(",") if name.strip()] if export else []
    try:
        path = pack_bundle(folder, weights, output, exports, summary, overlay, replace)
    except (ExportError, OSError, ValueError) as error:
        fail(error)
    typer.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


@app.command()
def record(
    folder: Path = typer.Argument(..., help="Folder of the bundle, with its weights."),
    summary: Path = typer.Option(..., help="summary.json of an evaluation of these weights."),
) -> None:
    """Keep in a bundle what an evaluation of its weights found: the expected Dice of every subset, and a picture.

    `medmap predict` then tells what quality to expect, and packages and their cards show it. The picture needs label
    maps (`medmap evaluate --keep-maps 3`) and the extra "report".

    Example: medmap bundle record bundles/brats_starter --summary evaluation/summary.json
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.zoo.bundle_folder import BundleFolder
    from medmap_monai.zoo.record import record_evaluation

    try:
        files = record_evaluation(BundleFolder(folder), summary)
    except (OSError, ValueError) as error:
        fail(error)
    typer.echo("\n".join(map(str, files)))


@app.command()
def index(
    folder: Path = typer.Argument(..., help="Folder with packages."),
    base_url: str | None = typer.Option(None, help="URL under which the folder will be served."),
    installed: bool = typer.Option(
        True,
        "--installed/--no-installed",
        help="Add the bundles of this installation: packed if they have weights, otherwise listed as recipes.",
    ),
) -> None:
    """Make a folder of packages a zoo that any web server can serve: model_info.json, index.html, a card per bundle.

    The bundles that came with this package are added. The pages open offline.

    Example: medmap bundle index zoo/
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.utils.find_bundle import known_bundles
    from medmap_monai.zoo.index import read_index, write_index
    from medmap_monai.zoo.pack_installed import pack_installed
    from medmap_monai.zoo.zoo_page import write_pages

    try:
        added = pack_installed(folder, known_bundles().values() if installed else ())
        path = write_index(folder, base_url)
        page = write_pages(folder, added.recipes, base_url)
    except (OSError, ValueError) as error:
        fail(error)
    for note in added.notes:
        typer.secho(note, fg=typer.colors.YELLOW, err=True)
    for entry in read_index(path.read_text(encoding="utf-8")):
        typer.echo(f"{entry.name} {entry.version}")
    typer.echo(f"{path}\n{page}")


@app.command()
def install(
    name: str = typer.Argument(..., help="Name of the bundle."),
    source: str = typer.Option(..., "--from", help="URL or folder of the zoo."),
    version: str | None = typer.Option(None, help="Version (default: the newest)."),
    to: Path = typer.Option(Path(), help="Folder in which the bundle's folder appears."),
    replace: bool = typer.Option(False, help="Exchange an installed bundle of this name."),
) -> None:
    """Install a bundle from a zoo, verified and unpacked in safety.

    Configurations of a bundle are code: install only from people you trust.

    Example: medmap bundle install brats_unet_dropout --from https://example.org/zoo
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.zoo.install import install_bundle

    try:
        folder = install_bundle(name, source, version, to, replace)
    except (OSError, ValueError) as error:
        fail(error)
    typer.echo(f"{folder}")
