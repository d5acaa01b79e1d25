"""``medmap synth``: write a cohort of synthetic studies with real anatomy."""

from __future__ import annotations

from pathlib import Path

import typer

from medmap_monai.utils.counted import counted


def synth(
    anatomy: str = typer.Argument(
        "mni152",
        help="Folder of brain label maps (FreeSurfer, FastSurfer or SynthSeg), or mni152: the built-in anatomy.",
    ),
    output: Path = typer.Option(..., "--output", "-o", help="Folder of the new cohort; appears when complete."),
    cases: int = typer.Option(10, min=1, help="Number of studies; label maps take turns."),
    spacing: float = typer.Option(1.0, help="Voxel size in mm."),
    edition: str = typer.Option("brats2020", help="Layout and label values: a BraTS edition."),
    priors: str = typer.Option("default", help="default, wide, shifted (for test sets), or a YAML file."),
    seed: int = typer.Option(0, min=0, help="The same seed gives the same voxels on every run."),
    first_case: int = typer.Option(0, min=0, help="Index of the first study; other indices are other studies."),
    anatomies: str | None = typer.Option(None, help="Label maps to use, counted from 1, such as 16-20."),
    missing_rates: str | None = typer.Option(None, help="Leave out files: such as t1=0.2,t1ce=0.4."),
    workers: int = typer.Option(0, min=0, help="Processes that write studies; 0: this one. The files are the same."),
    only: list[str] = typer.Option([], help="CASE=MODALITIES: this case has only these, such as last=flair+t2."),
) -> None:
    """Write SYNTHETIC brain tumour studies whose anatomy is real: four sequences and the label, as NIfTI files.

    Tumours, contrast and scanner are drawn from a table (medmap_monai/synthesis/priors.yaml). No patient with a tumour
    was imaged, and nothing measured on these studies is a clinical result.

    Example: medmap synth ANATOMY -o cohort --cases 20 --spacing 1 --only last=flair+t2
    """
    from rich.console import Console
    from rich.progress import Progress

    from medmap_monai.cli.errors import fail
    from medmap_monai.data.editions import get_edition
    from medmap_monai.data.phantom_recipe import MissingFiles
    from medmap_monai.data.splits import parse_rates
    from medmap_monai.synthesis.cohort import write_synthetic_cohort

    try:
        chosen = get_edition(edition)
        absent = {}
        for text in only:
            case, _, names = text.partition("=")
            if not names:
                raise ValueError(f"--only {text!r} must look like last=flair+t2")
            absent[case] = chosen.modalities.select([not flag for flag in chosen.modalities.mask(names)])
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("studies", total=cases)
            write_synthetic_cohort(
                output,
                anatomy,
                cases,
                spacing,
                chosen,
                priors,
                seed,
                first_case,
                MissingFiles(absent, parse_rates(missing_rates) if missing_rates else None),
                _numbers(anatomies),
                lambda done, _: bar.update(task, completed=done),
                workers,
            )
    except (ImportError, OSError, ValueError) as error:
        fail(error)
    typer.echo(f"synthetic cohort written: {counted(cases, f'{chosen} study')} of {spacing:g} mm in {output}")


def _numbers(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise ValueError(f"--anatomies {text!r} must look like 16-20")
    return int(first), int(last or first)
