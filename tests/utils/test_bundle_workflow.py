from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medmap_monai.utils.bundle_workflow import open_workflow, parse_overrides


def test_overlays_and_overrides(make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    plain = open_workflow(bundle, "inference")
    assert plain.parser["roi_size"] == [80, 80, 80]
    small = open_workflow(bundle, "inference", ["phantom"], {"roi_size": [16, 16, 16], "edition": None})
    assert small.parser["roi_size"] == [16, 16, 16]
    assert small.parser["edition"] == "brats2020"  # None leaves the configured value
    assert small.parser["network_def"]["channels"] == [8, 16, 32, 64]
    assert small.parser["bundle_root"] == str(bundle)


def test_what_is_missing_is_named(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a bundle"):
        open_workflow(tmp_path, "inference")
    with pytest.raises(FileNotFoundError, match=r"no configuration 'fantom'.*'phantom'"):
        open_workflow(make_bundle(), "inference", ["fantom"])


def test_overrides_keep_their_types() -> None:
    pairs = ["a=4", "b=[1, 2]", "c=true", "d=text", "e=0.5", "train#trainer#max_epochs=2", "f=", "g=x=y"]
    assert parse_overrides(pairs) == {
        "a": 4,
        "b": [1, 2],
        "c": True,
        "d": "text",
        "e": 0.5,
        "train#trainer#max_epochs": 2,
        "f": "",
        "g": "x=y",
    }
    with pytest.raises(ValueError, match="not of the form key=value"):
        parse_overrides(["roi_size"])
