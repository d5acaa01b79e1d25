"""``medmap phantom``: write a synthetic cohort."""

from __future__ import annotations

from pathlib import Path

import typer

from medmap_monai.utils.counted import counted


def phantom(
    folder: Path = typer.Argument(..., help="Folder of the new cohort; it appears when the cohort is complete."),
    edition: str = typer.Option(
        "brats2020", help="Layout and label values: brats2018, -2019, -2020, -2021, -2023, brain-metastases, myops2020."
    ),
    cases: int = typer.Option(24, min=1, help="Number of cases."),
    shape: tuple[int, int, int] | None = typer.Option(
        None, help="Voxels per axis. Default: 64 64 64 for brains; 96 96 10 (10 slices) for hearts."
    ),
    seed: int = typer.Option(0, min=0, help="The same seed gives the same voxels on every run."),
    first_case: int = typer.Option(0, min=0, help="Index of the first case; other indices are other patients."),
    missing_rates: str | None = typer.Option(
        None, help="Leave out files: share of cases that lack each modality, such as t1=0.2,t1ce=0.4."
    ),
    only: list[str] = typer.Option(
        [],
        help="CASE=MODALITIES: this case has only these, such as last=flair+t2. CASE is a number from 1, "
        "'last' or a case id. Repeatable.",
    ),
    without_enhancement: float = typer.Option(
        0.0, min=0.0, max=1.0, help="Chance of a lesion that does not enhance (brain without ET, heart without scar)."
    ),
    oblique: bool = typer.Option(False, help="Turn the volumes about all three axes, as tilted acquisitions are."),
    workers: int = typer.Option(1, min=1, help="Threads."),
) -> None:
    """Write a SYNTHETIC cohort: real NIfTI files in a data set's exact layout, for tests, demos and first steps.

    Every modality shows what it shows in patients (FLAIR the oedema, T1ce the enhancing rim, ...), so that missing
    modalities have their effect. No voxel comes from a patient. A folder that already holds this cohort is left alone.

    Example: medmap phantom cohort --cases 24 --shape 64 64 64 --missing-rates t2=0.5 --only last=flair+t2
    """
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from medmap_monai.cli.errors import fail
    from medmap_monai.data.availability import realised_rates
    from medmap_monai.data.editions import get_edition
    from medmap_monai.data.phantom import ensure_recipe
    from medmap_monai.data.phantom_recipe import PhantomRecipe
    from medmap_monai.data.splits import parse_rates

    existed = folder.is_dir() and any(folder.iterdir())
    try:
        chosen = get_edition(edition)
        size = shape or ((96, 96, 10) if chosen.slices else (64, 64, 64))
        rates = parse_rates(missing_rates) if missing_rates else None
        absent = {}
        for text in only:
            case, _, names = text.partition("=")
            if not names:
                raise ValueError(f"--only {text!r} must look like last=flair+t2")
            mask = chosen.modalities.mask(names)
            absent[case] = chosen.modalities.select([not flag for flag in mask])
        affine = "oblique" if oblique else "straight"
        recipe = PhantomRecipe(chosen, cases, size, seed, first_case, absent, rates, without_enhancement, affine)
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("cases", total=cases)
            ensure_recipe(folder, recipe, lambda done, _: bar.update(task, completed=done), workers)
            bar.update(task, completed=cases)
    except (OSError, ValueError) as error:
        fail(error)
    state = "is there already" if existed else "written"
    typer.echo(
        f"synthetic cohort {state}: {counted(cases, f'{chosen} case')} of {'x'.join(map(str, size))} voxels in {folder}"
    )
    available = list(recipe.kept.values())
    if any(len(names) < len(chosen.modalities) for names in available):
        table = Table("modality", "cases", "missing rate")
        for name, rate in realised_rates(available, chosen.modalities).items():
            table.add_row(name, str(sum(name in names for names in available)), f"{rate:.2f}")
        Console().print(table)
