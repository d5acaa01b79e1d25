"""Open a bundle's configuration as ``python -m monai.bundle run`` does, for the ``medmap`` commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow


def open_workflow(
    bundle: str | os.PathLike[str],
    config: str,
    overlays: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    workflow_type: str = "infer",
) -> ConfigWorkflow:
    """A workflow of ``bundle``, initialised and ready to ``run()``.

    Args:
        bundle: the bundle's folder.
        config: name of a file in its ``configs`` (``inference``), without suffix.
        overlays: names in ``configs`` or paths of JSON/YAML files that are merged over it, in order.
        overrides: config ids to replace, such as ``{"dataset_dir": "studies"}``; None values are left out.
        workflow_type: ``infer`` or ``train``, MONAI's property table.

    Raises:
        FileNotFoundError: when the folder is no bundle, or a configuration does not exist; lists those that do.
    """
    root = Path(bundle)
    configs = root / "configs"
    if not configs.is_dir():
        raise FileNotFoundError(f"{root} is not a bundle: it has no folder 'configs'")
    files = [str(_config_file(configs, name)) for name in (config, *overlays)]
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # its remark on logging_file=False is no news
    workflow = ConfigWorkflow(
        config_file=files,
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type=workflow_type,
        bundle_root=str(root),
        **given,
    )
    workflow.initialize()
    return workflow


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``["sw_batch_size=4", "roi_size=[64,64,64]"]`` -> a dict; values are YAML, so numbers and lists keep their type.

    Raises:
        ValueError: for a pair without ``=``.
    """
    import yaml

    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ValueError(f"override {pair!r} is not of the form key=value")
        overrides[key] = yaml.safe_load(value) if value else ""
    return overrides


def _config_file(configs: Path, name: str) -> Path:
    candidates = [configs / f"{name}{suffix}" for suffix in ("", ".json", ".yaml", ".yml")] + [Path(name)]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted(p.stem for p in configs.iterdir() if p.suffix in (".json", ".yaml", ".yml") and p.stem != "metadata")
    raise FileNotFoundError(f"no configuration {name!r} in {configs}; there are {known}")
