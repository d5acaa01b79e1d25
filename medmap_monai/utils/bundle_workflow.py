"""Open a bundle's configuration as ``python -m monai.bundle run`` does, for the ``medmap`` commands."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from medmap_monai.utils.config_keys import require_known_key, require_known_overlay
from medmap_monai.utils.find_bundle import came_with_package, find_bundle

_ARGUMENTS = "given_arguments"
_KNOWN_TARGETS = ("medmap_monai.", "monai.", "torch.", "ignite.")
_warned: set[Path] = set()
_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


class ArgumentValues:
    """Values that came from outside, kept where MONAI's parser does not look into them."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(values)

    def __getitem__(self, index: int) -> Any:
        return self.values[index]


def open_workflow(
    bundle: str | os.PathLike[str],
    config: str,
    overlays: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    workflow_type: str = "infer",
    trust: bool = True,
) -> ConfigWorkflow:
    """A workflow of ``bundle``, initialised and ready to ``run()``.

    The files of the bundle and the overlays are code: what follows a ``$`` in them runs. ``overrides`` are data:
    whatever a text begins with or holds (``$``, ``@``, ``%``, ``#``), it arrives as it is.

    Args:
        bundle: the bundle's folder, or the name of one that came with this package.
        config: name of a file in its ``configs`` (``inference``), without suffix.
        overlays: names in ``configs`` or paths of JSON/YAML files that are merged over it, in order.
        overrides: config ids to replace, such as ``{"dataset_dir": "studies"}``; None is a value like others.
        workflow_type: ``infer`` or ``train``, MONAI's property table.
        trust: False gives MONAI's warning that a bundle is code, once per bundle and process; a bundle that came with
            this package is as trustworthy as the package, and gives none.

    Raises:
        FileNotFoundError: when the folder is no bundle, or a configuration does not exist; lists those that do.
        ValueError: for a key that the configuration does not know; lists those that it does.
    """
    root = find_bundle(bundle)
    configs = root / "configs"
    files = [_config_file(configs, name) for name in (config, *overlays)]
    given = dict(overrides or {})
    _check_keys(configs, files, given)
    if not trust:
        _warn_of_code(root, files)
    values = ArgumentValues([str(root), *given.values()])
    ids = {key: f"$@{_ARGUMENTS}[{number}]" for number, key in enumerate(["bundle_root", *given])}
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)  # its remark on logging_file=False is no news
    workflow = ConfigWorkflow(
        config_file=[str(file) for file in files],
        meta_file=str(configs / "metadata.json"),
        logging_file=False,
        workflow_type=workflow_type,
        **{_ARGUMENTS: values, **{key: _literal(given.get(key), text) for key, text in ids.items()}},
    )
    workflow.initialize()
    return workflow


def only_given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` without those that are None: a caller's way to say that the configuration keeps its own value."""
    return {key: value for key, value in arguments.items() if value is not None}


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``["sw_batch_size=4", "roi_size=[64,64,64]"]`` -> a dict; values are YAML: numbers and lists keep their type.

    ``null`` and ``None`` are None, which a configuration takes as it takes any other value; ``1e-4`` is a number, as
    for ``monai.bundle run``.

    Raises:
        ValueError: for a pair without ``=``.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ValueError(f"override {pair!r} is not of the form key=value")
        try:
            overrides[key] = _numbers(yaml.safe_load(value)) if value else ""
        except yaml.YAMLError:
            overrides[key] = value  # '@home', '%a' and the like are no YAML, but they are text
    return overrides


def _numbers(value: Any) -> Any:
    """What YAML 1.1 leaves as text and Python does not: 1e-4 and None."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)
    return None if value == "None" else value


def _literal(value: Any, reference: str) -> Any:
    """``value`` itself where it holds no text, else the reference by which it reaches its place unparsed."""
    return value if value is not None and _without_text(value) else reference


def _without_text(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_without_text(item) for item in value)
    return isinstance(value, bool | int | float)


def _load(file: Path) -> dict[str, Any]:
    """The content of a configuration; what is none is named in one line."""
    try:
        content = ConfigParser.load_config_file(str(file))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is not a configuration: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a configuration: a JSON object is expected, got a {type(content).__name__}")
    return content


def _check_keys(configs: Path, files: Sequence[Path], given: Mapping[str, Any]) -> None:
    loaded = [_load(file) for file in files]
    base = loaded[0]
    merged = ConfigParser.load_config_files([str(file) for file in files])
    if len(files) > 1:
        others: set[str] = set()
        for path in configs.iterdir():
            if path.suffix in (".json", ".yaml", ".yml") and path.stem != "metadata":
                others |= {key.replace("::", "#").split("#")[0] for key in _load(path)}
        for file, overlay in zip(files[1:], loaded[1:], strict=True):
            require_known_overlay(overlay, base, merged, others, str(file))
    for key, value in given.items():
        if key != "bundle_root":
            require_known_key(merged, key, str(files[0]))
        if isinstance(value, Mapping) and "_target_" in value:
            raise ValueError(f"{key}: a component (_target_) is code; put it into an overlay file and give --overlay")


def _is_own(root: Path, files: Sequence[Path]) -> bool:
    """Whether configurations are this package's own, and call nothing but it and what it is built on."""
    own = (root / "configs").resolve()
    if not came_with_package(root) or any(file.resolve().parent != own for file in files):
        return False
    targets = [target for file in files for target in _targets(_load(file))]
    return all("." not in target or target.startswith(_KNOWN_TARGETS) for target in targets)


def _targets(content: Any) -> list[str]:
    """Every ``_target_`` below ``content``."""
    if isinstance(content, dict):
        found = [str(content["_target_"])] if "_target_" in content else []
        return found + [target for value in content.values() for target in _targets(value)]
    return [target for item in content for target in _targets(item)] if isinstance(content, list) else []


def _warn_of_code(root: Path, files: Sequence[Path]) -> None:
    """MONAI's own warning of ``bundle run`` (GHSA-873f-pvrv-4x83), which opening a workflow directly does not give."""
    if root.resolve() in _warned or _is_own(root, files):
        return
    _warned.add(root.resolve())
    names = ", ".join(file.name for file in files)
    warnings.warn(
        f"{root} runs code ({names}): any '_target_' in it is imported and called, and any value that begins with '$' "
        "is evaluated. Only proceed with a bundle from a source you trust; --trust says that you do "
        "(see https://github.com/Project-MONAI/MONAI/security/advisories/GHSA-873f-pvrv-4x83).",
        stacklevel=3,
    )


def _config_file(configs: Path, name: str) -> Path:
    candidates = [configs / f"{name}{suffix}" for suffix in ("", ".json", ".yaml", ".yml")] + [Path(name)]
    for path in candidates:
        if path.is_file():
            return path
    known = sorted(p.stem for p in configs.iterdir() if p.suffix in (".json", ".yaml", ".yml") and p.stem != "metadata")
    raise FileNotFoundError(f"no configuration {name!r} in {configs}; there are {known}")
