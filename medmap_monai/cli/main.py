"""The ``medmap`` command: thin; every sub-command lives in a module of this folder and only parses arguments."""

from __future__ import annotations

import io
import sys

import typer

from medmap_monai import __version__
from medmap_monai.cli.bundle import app as bundle_app
from medmap_monai.cli.evaluate import evaluate
from medmap_monai.cli.features import features
from medmap_monai.cli.import_weights import import_weights
from medmap_monai.cli.info import info
from medmap_monai.cli.modality_files import ModalityFilesCommand
from medmap_monai.cli.phantom import phantom
from medmap_monai.cli.plain_warnings import show_warnings_plainly
from medmap_monai.cli.predict import predict
from medmap_monai.cli.prepare import prepare
from medmap_monai.cli.preprocess import preprocess
from medmap_monai.cli.report import report
from medmap_monai.cli.split import split
from medmap_monai.cli.synth import synth

app = typer.Typer(
    name="medmap",
    help="Segment medical images when some modalities are missing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"medmap-monai {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Show the version."),
) -> None:
    """Segment medical images when some modalities are missing."""
    for stream in (sys.stdout, sys.stderr):  # names of files may be in another encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


for _command in (phantom, synth, split, prepare, preprocess, evaluate, report, features, import_weights, info):
    app.command()(_command)
app.command(cls=ModalityFilesCommand)(predict)
app.add_typer(bundle_app, name="bundle")


def main() -> None:
    """Entry point of the console command."""
    show_warnings_plainly()
    app()


if __name__ == "__main__":
    main()
