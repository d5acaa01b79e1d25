"""Pack a bundle and its weights into one file of the zoo's layout, the same bytes each time."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import look_up_option

from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.metrics.reliability import RELIABILITY_FILE
from medmap_monai.utils.files import atomic_path, file_sha256, write_text
from medmap_monai.zoo.archive import write_archive
from medmap_monai.zoo.bundle_folder import BundleFolder, load_json
from medmap_monai.zoo.check import Status, check_bundle
from medmap_monai.zoo.export import FORMATS, export_bundle, missing_packages
from medmap_monai.zoo.model_card import card_body, model_card
from medmap_monai.zoo.record import PICTURE, WORST_PICTURE, measured, record_evaluation, summary_of
from medmap_monai.zoo.release_metadata import release_metadata
from medmap_monai.zoo.safe_weights import read_state_dict

#: entries of an overlay that the weights depend on: the network, and how it has seen images in training
_OF_THE_WEIGHTS = (
    *("network_def", "anchor", "anchor_weights", "aligned_levels", "replace_levels"),
    *("roi_size", "study_shape", "protocol", "orientation", "spacing"),
)


class BundleRejectedError(ValueError):
    """The package would not pass the zoo's checks; the message lists the failures."""


def pack_bundle(
    bundle: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    output: str | os.PathLike[str] = ".",
    exports: Sequence[str] = (),
    summary: str | os.PathLike[str] | None = None,
    overlay: str | None = None,
    replace: bool = False,
) -> Path:
    """Write ``<output>/<name>_v<version>.zip`` and, beside it, ``.zip.sha256`` as ``sha256sum -c`` reads it.

    The package holds the licence, configurations and documentation of the bundle, ``models/model.pt`` and the
    exports, a model card, and metadata with the versions installed here. It passes the zoo's checks before it is
    written. Packing the same input again gives the same bytes.

    Args:
        bundle: the bundle's folder.
        weights: a ``model.pt`` that fits its network strictly.
        output: folder for the package.
        exports: any of ``torchscript`` and ``onnx``; each is compared with eager execution.
        summary: ``summary.json`` of an evaluation of these weights: results in metadata and model card, and expected
            quality (``models/reliability.json``) for ``medmap predict``. Without it, what the bundle itself keeps of
            an evaluation (:func:`~medmap_monai.zoo.record.record_evaluation`), if that was made with these weights.
        overlay: name in ``configs`` (such as ``phantom``) of what the weights were trained with; its network, window,
            grid and protocol are written into the package's configurations, which then need no overlay.
        replace: overwrite a package of the same version that has other content.

    Returns:
        the zip file.

    Raises:
        FileNotFoundError: bundle, weights, summary or overlay are absent.
        FileExistsError: this version was packed before, with other content.
        ValueError: weights or summary do not belong to the bundle, or an export is not supported.
        BundleRejectedError: a check of the package fails.
        ExportError: an export fails or computes something else.
    """
    source = BundleFolder(bundle)
    for file_format in exports:
        _require_export(source, file_format)
    state = Path(weights)
    read_state_dict(state)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / source.name
        for file in source.released_files():
            target = root / file.relative_to(source.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        (root / "models").mkdir()
        shutil.copyfile(state, root / "models" / "model.pt")
        staged = BundleFolder(root)
        if overlay is not None:
            _write_overlay(staged, source.required_config(overlay))
        load_model(staged.build_network(), staged.weights_file)
        found = _results(source, staged, summary)
        _describe(staged, found, overlay)
        _require_passes(root)
        if exports:
            export_bundle(root, [name for name in FORMATS if name in exports])
        return _write(root, Path(output) / f"{source.name}_v{source.metadata['version']}.zip", replace)


def _require_export(bundle: BundleFolder, file_format: str) -> None:
    look_up_option(file_format, list(FORMATS))
    declared = bundle.metadata.get("unsupported_exports", {})
    if file_format in declared:
        raise ValueError(f"{bundle.name} does not support export to {file_format}: {declared[file_format]}")
    missing = missing_packages(file_format)
    if missing:
        raise ValueError(f"export to {file_format} needs packages that are not installed: {', '.join(missing)}")


def _results(source: BundleFolder, staged: BundleFolder, summary: str | os.PathLike[str] | None) -> Any:
    """What is known of the staged weights, in the form of ``summary.json``; its files are put into place."""
    if summary is not None:
        record_evaluation(staged, summary)
        return load_json(Path(summary))
    kept = source.root / "models" / RELIABILITY_FILE
    if kept.is_file():
        shutil.copyfile(kept, staged.root / "models" / RELIABILITY_FILE)
        content = measured(staged)
        if content is not None and content.get("checkpoint"):
            return summary_of(content)
        (staged.root / "models" / RELIABILITY_FILE).unlink()  # of other weights
    for picture in (PICTURE, WORST_PICTURE):
        (staged.root / picture).unlink(missing_ok=True)
    return None


def _write_overlay(staged: BundleFolder, overlay: Path) -> None:
    """Write the overlay's network, and how it sees images, into the staged configurations."""
    changes = {
        key: value
        for key, value in ConfigParser.load_config_file(overlay).items()
        if key.replace("::", "#").split("#")[0] in _OF_THE_WEIGHTS
    }
    for stem in ("train", "inference", "evaluate"):
        path = staged.config_file(stem)
        if path is None:
            continue
        parser = ConfigParser(ConfigParser.load_config_file(path))
        for key, value in changes.items():
            if key.replace("::", "#").split("#")[0] in parser:
                parser[key] = value
        content = {key: value for key, value in parser.get().items() if key != "_meta_"}
        ConfigParser.export_config_file(content, str(path), fmt="yaml" if path.suffix != ".json" else "json", indent=4)


def _describe(staged: BundleFolder, summary: dict[str, Any] | None, overlay: str | None) -> None:
    """Write metadata, documentation and model card of the release."""
    metadata = release_metadata(staged.metadata, file_sha256(staged.weights_file), summary, overlay)
    write_text(staged.metadata_file, json.dumps(metadata, indent=4, ensure_ascii=False) + "\n")
    readme_file = staged.root / "docs" / "README.md"
    readme = readme_file.read_text(encoding="utf-8")
    license_text = (staged.root / "LICENSE").read_text(encoding="utf-8", errors="replace")
    captions = {PICTURE: "One case, segmented from every subset of its modalities", WORST_PICTURE: "The worst of them"}
    pictures = {text: path.as_posix() for path, text in captions.items() if (staged.root / path).is_file()}
    write_text(staged.root / "README.md", model_card(staged.name, metadata, readme, license_text, pictures))
    # hubs that are filled by MONAI show this file, and put their own front matter in front of it
    write_text(readme_file, card_body(staged.name, metadata, readme))


def _require_passes(root: Path) -> None:
    failures = [str(r) for r in check_bundle(root, skip=tuple(FORMATS)) if r.status is Status.FAIL]
    if failures:
        raise BundleRejectedError("the package would not pass:\n" + "\n".join(failures))


def _write(root: Path, path: Path, replace: bool) -> Path:
    """Zip and checksum; a version that exists already must not change unasked."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch) / path.name
        write_archive(root, fresh)
        digest = file_sha256(fresh)
        if path.is_file() and not replace and file_sha256(path) != digest:
            raise FileExistsError(
                f"{path} exists with other content; a released version does not change. Raise the version in "
                "metadata.json and say what changed in its changelog, or pass --replace"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            shutil.copyfile(fresh, temporary)
    write_text(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n")
    return path
