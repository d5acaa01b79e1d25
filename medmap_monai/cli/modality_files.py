"""``--flair FILE --t1ce FILE``: one study by its files, whatever their names; an option per modality of the bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from medmap_monai.utils.find_bundle import find_bundle
from medmap_monai.utils.json_file import read_json

_META = "medmap_modality_files"


class ModalityFilesCommand(TyperCommand):
    """A command that takes ``--NAME FILE`` for any NAME that is none of its own options.

    Which names a bundle has is known only when the bundle is: :func:`given_files` has them, and whoever reads them
    refuses those that are no modality.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the unknown options with their values out, and parse the rest as ever."""
        known = {name: param for param in self.get_params(ctx) for name in (*param.opts, *param.secondary_opts)}
        rest: list[str] = []
        files: dict[str, str] = {}
        position = 0
        while position < len(args):
            name, equals, value = args[position].partition("=")
            if args[position] == "--":
                rest += args[position:]
                break
            takes_value = not equals and position + 1 < len(args)
            if name.startswith("--") and name not in known:
                if not equals:
                    value = args[position + 1] if takes_value else ""
                    position += 1
                if name[2:] in files:
                    raise typer.BadParameter(f"{name} is given twice")
                files[name[2:]] = value
            else:
                rest.append(args[position])
                if takes_value and name in known and not getattr(known[name], "is_flag", False):
                    position += 1  # the value of an option of its own, whatever it looks like
                    rest.append(args[position])
            position += 1
        ctx.meta[_META] = files
        return super().parse_args(ctx, rest)


def given_files(ctx: typer.Context) -> dict[str, str]:
    """Modality -> file as they stand on the command line."""
    return dict(ctx.meta.get(_META, {}))


def bundle_modalities(bundle: Path, overlays: Sequence[str] = ()) -> tuple[str, ...]:
    """The modalities that a bundle's ``inference.json`` (or an overlay) lists, as names of options.

    Raises:
        FileNotFoundError, ValueError: no bundle, or none that lists its modalities.
    """
    modalities: list[str] = []
    bundle = find_bundle(bundle)
    for name in ("inference", *overlays):
        path = next((p for p in (bundle / "configs" / f"{name}.json", Path(name)) if p.is_file()), None)
        if path is None:
            continue
        content = read_json(path, "configuration")
        found = content.get("modalities", modalities) if isinstance(content, dict) else modalities
        modalities = found if isinstance(found, list) else modalities
    if not modalities:
        raise ValueError(f"{bundle} does not list its modalities in configs/inference.json")
    return tuple(modalities)


def write_study_manifest(
    files: Mapping[str, str],
    modalities: Sequence[str],
    output: Path,
    case_id: str | None = None,
    edition: str | None = None,
) -> Path:
    """A manifest of one study in ``output``, as ``predict`` reads it.

    Args:
        files: modality -> file.
        modalities: names that are allowed.
        output: folder of the results.
        case_id: name of the study; by default what the files' names have in common, or their folder's name.
        edition: label values to write; detected from the modalities when None.

    Raises:
        ValueError: a name that is no modality, or a file given for two.
        FileNotFoundError: a file does not exist.
    """
    from medmap_monai.api.study_files import write_study
    from medmap_monai.data.file_names import nifti_stem
    from medmap_monai.data.reading import folder_name
    from medmap_monai.data.spellings import spelt

    options = ", ".join(f"--{name}" for name in modalities)
    unknown = [name for name in files if name not in modalities]
    if unknown:
        raise ValueError(f"no such option: --{unknown[0]}; the modalities of the bundle are {options}")
    paths = {name: Path(os.path.abspath(file)) for name, file in files.items()}
    for name, path in paths.items():
        if not files[name] or not path.is_file():
            raise FileNotFoundError(f"--{name}: {files[name] or 'no file given'} does not exist")
        if nifti_stem(path) is None:
            from medmap_monai.data.foreign_files import what_file_is

            raise ValueError(f"--{name}: {path} is {what_file_is(path)}")
    if case_id is None:
        rests = {spelt(nifti_stem(path) or "", modalities).rest for path in paths.values()}
        folders = {path.parent for path in paths.values()}
        agreed = next(iter(rests)) if len(rests) == 1 else ""
        case_id = agreed or (folder_name(min(folders)) if len(folders) == 1 else nifti_stem(min(paths.values())) or "")
    return write_study(paths, modalities, output, case_id, edition, f"{case_id}_inputs.json")
