"""``medmap import-weights``: from a published checkpoint to a bundle that works."""

from __future__ import annotations

from pathlib import Path

import typer


def import_weights(
    checkpoint: Path = typer.Argument(..., help="A checkpoint that the authors of the network published."),
    bundle: Path = typer.Option(..., "--bundle", "-b", help="The bundle of that network; gets models/model.pt."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace weights that the bundle has already."),
) -> None:
    """Write a bundle's models/model.pt from published weights of its network.

    The network is the one of configs/inference.json. Nothing is written unless every weight fits.

    Example: medmap import-weights model_last.pth --bundle bundles/brats_rfnet_dropout
    """
    from medmap_monai.cli.errors import fail
    from medmap_monai.utils.plain_errors import root_cause

    try:
        written = write_bundle_weights(checkpoint, bundle, overwrite)
    except (OSError, ValueError, TypeError) as error:
        fail(error)
    except RuntimeError as error:  # MONAI wraps what a component raises
        fail(root_cause(error))
    typer.echo(f"wrote {written}")


def write_bundle_weights(checkpoint: Path, bundle: Path, overwrite: bool = False) -> Path:
    """Write ``bundle/models/model.pt`` (a state dict) from a published checkpoint.

    Args:
        checkpoint: see :func:`medmap_monai.checkpoints.published.load_published_weights`.
        bundle: folder with ``configs/inference.json``.
        overwrite: replace weights that are there.

    Returns:
        the path that was written.

    Raises:
        FileNotFoundError: when checkpoint or bundle are missing.
        FileExistsError: when the bundle has weights and ``overwrite`` is False.
        ValueError: when the bundle's modalities are not the published ones, or the weights do not fit.
        TypeError: when there are no published weights for the bundle's network.
    """
    import torch
    from monai.bundle import ConfigParser

    from medmap_monai.checkpoints.key_maps import PUBLISHED_MODALITIES
    from medmap_monai.checkpoints.published import load_published_weights
    from medmap_monai.utils.files import atomic_path

    config = bundle / "configs" / "inference.json"
    if not config.is_file():
        raise FileNotFoundError(f"{bundle} is not a bundle: it has no {config.relative_to(bundle)}")
    if not checkpoint.is_file():
        raise FileNotFoundError(f"there is no checkpoint {checkpoint}")
    target = bundle / "models" / "model.pt"
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists already; pass --overwrite to replace it")
    parser = ConfigParser()
    parser.read_config(config)
    names = parser.get_parsed_content("modalities") if "modalities" in parser else None
    if names is not None and tuple(str(name).lower() for name in names) != PUBLISHED_MODALITIES:
        raise ValueError(f"{config}: published weights are for modalities {list(PUBLISHED_MODALITIES)}, got {names}")
    network = load_published_weights(parser.get_parsed_content("network_def"), checkpoint)
    with atomic_path(target) as temporary:
        torch.save(network.state_dict(), temporary)
    return target
