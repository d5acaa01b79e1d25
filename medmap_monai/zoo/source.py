"""The source of a bundle: a short file that names the parts it is put together from, and what is its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.edition_file import edition_from
from medmap_monai.zoo.bundle_folder import load_json
from medmap_monai.zoo.merge import BASE

#: folder of what bundles have in common: one JSON file per task, network, loss and method, and the files of a bundle
PARTS = Path(__file__).parent / "parts"
_SLICES = PARTS / "slices.json"  # training on slices, for every task in two dimensions
_DEFAULT_LOSS = "dice_ce"
#: kinds of parts, in the order in which they are laid over the common files
KINDS = ("task", "network", "loss", "method")
#: what a part, or a bundle's file, may hold
KEYS = {
    # of a bundle's file alone
    *("title", *KINDS),
    # words: one sentence for metadata.json; paragraphs of docs/README.md; any other key of metadata.json
    *("description", "readme", "metadata"),
    # what a task is
    *("modalities", "classes", "class_names", "edition", "spatial_dims", "roi_size", "missing_rates"),
    # what a network is: its arguments, what it must divide images by, its arguments on the phantom cohort
    *("network", "divisor", "small", "network_path"),
    # names of the losses that a method can work with, the first the best; any where it is not given
    "losses",
    # values of the configuration files, by the name of the file; "all" is train, inference and evaluate
    "configs",
}


def known_parts(kind: str) -> list[str]:
    """Names of the parts of a kind, such as the networks."""
    return sorted(path.stem for path in (PARTS / kind).glob("*.json"))


def losses_of(method: str) -> list[str]:
    """Names of the losses that a method can work with, the best first."""
    path = PARTS / "method" / f"{method}.json"
    return list(load_json(path).get("losses", [_DEFAULT_LOSS])) if path.is_file() else [_DEFAULT_LOSS]


class BundleSource:
    """A bundle's own file and the parts that it names.

    ``task``, ``network``, ``loss`` and ``method`` (one or a list) are names of parts, or parts written out; a network,
    loss or method may also be just the object that the configuration builds, with its ``_target_``.

    Args:
        path: the file, ``NAME.json``; the bundle is called NAME.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, has an unknown key or lacks one, or names a part that does not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.own = _checked(load_json(self.path), str(self.path))
        lacking = [key for key in ("title", *KINDS) if key not in self.own]
        if lacking:
            raise ValueError(f"{self.path} lacks {', '.join(lacking)}")
        #: from the bottom to the top: the task, the network, the loss, the methods, the bundle itself
        self.parts = [part for kind in KINDS for part in self._parts(kind)]
        self._check_loss()
        self._check_methods()
        if self.spatial_dims == 2:
            self.parts.insert(0, _checked(load_json(_SLICES), str(_SLICES)))
        self.parts.append({key: value for key, value in self.own.items() if key not in KINDS})

    @property
    def name(self) -> str:
        return self.path.stem

    def fact(self, key: str, default: Any = None) -> Any:
        """The value that the topmost part gives ``key``."""
        return next((part[key] for part in reversed(self.parts) if key in part), default)

    @property
    def edition(self) -> Mapping[str, Any] | None:
        """The edition that the source writes out, which becomes ``configs/edition.json``; None where it names one."""
        given = self.fact("edition")
        return given if isinstance(given, Mapping) else None

    @property
    def modalities(self) -> list[str]:
        """Names in channel order: given, or those of the edition."""
        given = self.fact("modalities") or list(self._described.modalities)
        return list(given)

    @property
    def classes(self) -> list[str]:
        """Names, background first: given, or those of the edition."""
        return list(self.fact("classes") or self._described.classes)

    @property
    def spatial_dims(self) -> int:
        """2 where networks work on slices."""
        return int(self.fact("spatial_dims", 2 if self.edition and self.edition.get("slices") else 3))

    @cached_property
    def _described(self) -> Edition:
        if self.edition is None:
            raise ValueError(f"{self.path}: the task must give modalities and classes, or write out its edition")
        return edition_from(self.edition, f"edition of {self.path}")

    def texts(self, section: str, key: str) -> list[str]:
        """What the parts say under ``key`` of a section such as ``readme``, from the bottom to the top."""
        return [part[section][key] for part in self.parts if key in part.get(section, {})]

    def configs(self, stage: str) -> list[Mapping[str, Any]]:
        """What the parts lay over a configuration file, from the bottom to the top."""
        common = ("all", stage) if stage in ("train", "inference", "evaluate") else (stage,)
        return [part["configs"][name] for part in self.parts for name in common if name in part.get("configs", {})]

    @property
    def has_phantom(self) -> bool:
        """Whether the task, or the bundle itself, has a phantom cohort to try the bundle on."""
        tasks = [*self._parts("task"), self.own]
        return any("phantom" in part.get("configs", {}) for part in tasks)

    def stages(self) -> set[str]:
        """Names of the configuration files that the parts name."""
        return {stage for part in self.parts for stage in part.get("configs", {})} - {"all"}

    def _check_loss(self) -> None:
        loss = self.own["loss"]
        for part in self._parts("method"):
            if isinstance(loss, str) and loss not in part.get("losses", [loss]):
                raise ValueError(
                    f"{self.path}: method {self.own['method']} works with the loss {part['losses'][0]}, not {loss}"
                )

    def _check_methods(self) -> None:
        """One method trains, and those that follow it must build upon it: another one would replace it, unnoticed."""
        below: str | None = None
        for number, part in enumerate(self._parts("method")):
            given = self.own["method"][number] if isinstance(self.own["method"], list) else self.own["method"]
            name = given if isinstance(given, str) else f"method {number + 1}"
            method = part.get("configs", {}).get("train", {}).get("method")
            if method is None:
                continue
            builds_upon = f'"{BASE}"' in json.dumps(method)
            if builds_upon and below is None:
                raise ValueError(
                    f"{self.path}: {name} builds upon another method: name that first, as in dropout,{name}"
                )
            if not builds_upon and below is not None:
                raise ValueError(
                    f"{self.path}: {name} would take the place of {below}; only methods that build upon another one, "
                    "such as medmap, can follow it"
                )
            below = name

    def _parts(self, kind: str) -> list[dict[str, Any]]:
        given = self.own[kind]
        return [self._part(kind, one) for one in (given if isinstance(given, list) else [given])]

    def _part(self, kind: str, given: Any) -> dict[str, Any]:
        if isinstance(given, Mapping) and "_target_" in given:
            given = {"network": given} if kind == "network" else {"configs": {"train": {kind: given}}}
        if isinstance(given, Mapping):
            return _checked(given, f"{kind} of {self.path}")
        path = PARTS / kind / f"{given}.json"
        if given not in known_parts(kind):
            raise ValueError(f"{self.path}: there is no {kind} {given!r}; there are {', '.join(known_parts(kind))}")
        return _checked(load_json(path), str(path))


def _checked(part: Any, where: str) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        raise ValueError(f"{where} must hold an object, got a {type(part).__name__}")
    unknown = sorted(set(part) - KEYS)
    if unknown:
        raise ValueError(f"{where} has unknown keys {unknown}; allowed are {sorted(KEYS)}")
    return dict(part)
