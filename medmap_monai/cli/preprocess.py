"""``medmap preprocess``: fill the store of preprocessed cases before training does it."""

from __future__ import annotations

from pathlib import Path

import typer

from medmap_monai.utils.counted import counted


def preprocess(
    bundle: Path = typer.Argument(..., help="The bundle that will be trained; its train.json says how."),
    data: str | None = typer.Option(None, help="Data folder or manifest. Default: the bundle's."),
    store: Path | None = typer.Option(None, help="Folder of the store. Default: the bundle's store_dir."),
    split_file: str | None = typer.Option(None, help="Split file; its training cases are preprocessed."),
    overlay: list[str] = typer.Option([], help="Overlay of the bundle (a name in configs, or a file), repeatable."),
    setting: list[str] = typer.Option([], "--set", help="Any other value as key=value, as it will be trained."),
    workers: int = typer.Option(2, min=0, help="Processes."),
) -> None:
    """Write every training case once as it is before augmentation: normalised, cropped to the brain.

    Training does the same in its first epoch. Give the settings that training will get: others make other entries.

    Example:

      medmap preprocess bundles/brats_passion_rfnet --data BraTS2020 --workers 8
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.data.fill_store import fill_store
    from medmap_monai.utils.bundle_workflow import only_given, open_workflow, parse_overrides

    try:
        given = {"dataset_dir": data, "store_dir": None if store is None else str(store), "split_file": split_file}
        workflow = open_workflow(bundle, "train", overlay, {**only_given(given), **parse_overrides(setting)}, "train")
        dataset = workflow.parser.get_parsed_content("train#dataset")
        result = fill_store(dataset, workers)
    except (OSError, ValueError) as error:
        fail(error)
    typer.echo(f"{counted(result.written, 'case')} written, {result.found} found, in {dataset.store.folder}")
    for case_id, reason in result.failures.items():
        typer.echo(f"failed: {reason if case_id in reason else f'case {case_id}: {reason}'}", err=True)
    if result.failures:
        raise typer.Exit(1)
