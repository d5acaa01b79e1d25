from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from medmap_monai.utils.bundle_workflow import only_given, open_workflow, parse_overrides


def test_overlays_and_overrides(make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    plain = open_workflow(bundle, "inference")
    assert plain.parser["roi_size"] == [80, 80, 80]
    small = open_workflow(bundle, "inference", ["phantom"], {"roi_size": [16, 16, 16]})
    assert small.parser["roi_size"] == [16, 16, 16]
    assert small.parser["edition"] == "brats2020"
    assert small.parser["network_def"]["channels"] == [8, 16, 32, 64]
    assert small.parser.get_parsed_content("bundle_root") == str(bundle)


def test_none_is_a_value_and_arguments_that_were_not_given_are_none(make_bundle: Callable[..., Path]) -> None:
    """``--set decision=null`` once changed nothing, and nobody was told."""
    bundle = make_bundle()
    given = {"edition": "brats2021", **parse_overrides(["roi_size=null"])}
    parser = open_workflow(bundle, "inference", (), given).parser
    assert parser.get_parsed_content("edition") == "brats2021"
    assert parser.get_parsed_content("roi_size") is None
    assert open_workflow(bundle, "inference").parser.get_parsed_content("roi_size") == [80, 80, 80]
    assert only_given({"device": None, "resample": False, "edition": ""}) == {"resample": False, "edition": ""}


def test_what_is_missing_is_named(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a bundle"):
        open_workflow(tmp_path, "inference")
    with pytest.raises(FileNotFoundError, match=r"no configuration 'fantom'.*'phantom'"):
        open_workflow(make_bundle(), "inference", ["fantom"])


def test_overrides_keep_their_types() -> None:
    pairs = ["a=4", "b=[1, 2]", "c=true", "n=null", "d=text", "e=0.5", "train#trainer#max_epochs=2", "f=", "g=x=y"]
    assert parse_overrides(pairs) == {
        "a": 4,
        "b": [1, 2],
        "c": True,
        "n": None,
        "d": "text",
        "e": 0.5,
        "train#trainer#max_epochs": 2,
        "f": "",
        "g": "x=y",
    }
    with pytest.raises(ValueError, match="not of the form key=value"):
        parse_overrides(["roi_size"])


@pytest.mark.parametrize(
    "text",
    [
        "$__import__('os').mkdir('ran')",
        "@roi_size",
        "%roi_size",
        "a#b",
        "a::b",
        "x/@device",
        "=1",
        "@#x",
        "$@bundle_root",
    ],
)
def test_arguments_are_data(
    make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = make_bundle()
    given = {"data_name": text, "dataset_dir": text, "subsets": [text, "flair"], "edge_cases": {"hd95_empty": text}}
    parser = open_workflow(bundle, "evaluate", ["phantom"], {**given, "inferer#mode": text}).parser
    for key, value in given.items():
        assert parser.get_parsed_content(key) == value
    assert parser.get_parsed_content("inferer::mode") == text
    assert str(parser.get_parsed_content("records").source) == text
    assert not (tmp_path / "ran").exists()


def test_a_bundle_may_lie_in_a_folder_of_any_name(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("$a", "%b", "@c", "d#e", "f::g"):
        bundle = shutil.copytree(make_bundle(), tmp_path / name)
        parser = open_workflow(bundle, "inference", ["phantom"]).parser
        assert parser.get_parsed_content("checkpoint") == f"{bundle}/models/model.pt"
        shutil.rmtree(tmp_path / "brats_unet_dropout")


def test_unknown_keys_are_errors_that_list_the_known(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = make_bundle()
    for key, told in {
        "sw_batchsize": "did you mean sw_batch_size",
        "dataset_dir#x": "did you mean dataset_dir",
        "network_def#channel": "network_def#channels",
        "postprocessing#transforms#7": "postprocessing#transforms#1",
    }.items():
        with pytest.raises(ValueError, match=f"inference.json: unknown key.*{told}"):
            open_workflow(bundle, "inference", (), {key: 4})
    assert open_workflow(bundle, "inference", (), {"inferer#sigma_scale": 0.2}).parser["inferer"]["sigma_scale"] == 0.2
    overlay = tmp_path / "mine.json"
    overlay.write_text(json.dumps({"roi_sise": [8, 8, 8]}))
    with pytest.raises(ValueError, match=r"mine\.json: unknown key 'roi_sise'; did you mean roi_size"):
        open_workflow(bundle, "inference", [str(overlay)])
    # keys of the bundle's other configurations, and helpers that the overlay itself refers to
    overlay.write_text(json.dumps({"epochs": 3, "small": [8, 8, 8], "roi_size": "@small"}))
    assert open_workflow(bundle, "inference", [str(overlay)]).parser.get_parsed_content("roi_size") == [8, 8, 8]
    with pytest.raises(ValueError, match="put it into an overlay"):
        open_workflow(bundle, "inference", (), {"inferer": {"_target_": "os.getcwd"}})


def test_damaged_configurations_are_named(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    for text in ("[" * 100_000, "{", "[1]", "\xff"):
        (tmp_path / "mine.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"mine\.json is not a configuration"):
            open_workflow(make_bundle(), "inference", [str(tmp_path / "mine.json")])
        shutil.rmtree(tmp_path / "brats_unet_dropout")


def test_a_bundle_that_is_not_trusted_gives_monais_warning_once(make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*runs code")
        open_workflow(bundle, "inference", trust=True)
    with pytest.warns(UserWarning, match="runs code .*GHSA-873f"):
        open_workflow(bundle, "inference", trust=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*runs code")
        open_workflow(bundle, "inference", trust=False)


def test_values_that_are_no_yaml_are_text() -> None:
    assert parse_overrides(["a=1e-4", "b=[2e0, -.5E+1]", "c={t1: 1e-1}", "d=None", "e=1e", "f=e4"]) == {
        "a": 0.0001,
        "b": [2.0, -5.0],
        "c": {"t1": 0.1},
        "d": None,
        "e": "1e",
        "f": "e4",
    }
    assert parse_overrides(["a=@x", "b=%y", "c=[1"]) == {"a": "@x", "b": "%y", "c": "[1"}
