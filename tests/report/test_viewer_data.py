from __future__ import annotations

import base64
import gzip
import hashlib

import numpy as np

from medmap_monai.engines.case_maps import CaseMaps
from medmap_monai.report.viewer_data import niivue_script, share_images, viewer_case


def make_maps(shape=(20, 18, 16)) -> CaseMaps:
    rng = np.random.default_rng(0)
    reference = np.zeros(shape, dtype=np.uint8)
    reference[(slice(5, 9), slice(4, 8), slice(3, 7))[: len(shape)]] = 1
    image = rng.integers(0, 255, (2, *shape), dtype=np.uint8)
    predictions = {"t1": reference * 0, "t2": reference, "t1+t2": reference}
    return CaseMaps("case", ("t1", "t2"), image, reference, predictions, (1.0, 1.5, 2.0)[: len(shape)], ("bg", "x"))


def _unpack(text, shape):
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), dtype=np.uint8).reshape(shape, order="F")


def test_volumes_survive_the_packing():
    maps = make_maps()
    case = viewer_case(maps, "run", {"t2": {"WT": 1.0}})
    assert (case["shape"], case["spacing"], case["thinned"]) == ([20, 18, 16], [1.0, 1.5, 2.0], 1)
    np.testing.assert_array_equal(_unpack(case["labels"]["reference"], (20, 18, 16)), maps.reference)
    np.testing.assert_array_equal(_unpack(case["images"]["t2"], (20, 18, 16)), maps.image[1])
    assert case["classes"] == [{"index": 1, "name": "x", "colour": case["classes"][0]["colour"]}]
    assert case["subsets"][1] == {"name": "t2", "label": "T2", "flags": [False, True], "dice": {"WT": 1.0}}
    assert case["slice"] == 3


def test_a_large_case_is_thinned_until_it_fits():
    case = viewer_case(make_maps(), "run", {}, budget=4000)
    assert case["thinned"] == 2
    assert case["spacing"] == [2.0, 3.0, 4.0]
    assert _unpack(case["labels"]["reference"], case["shape"]).max() == 1


def test_a_slice_becomes_a_volume_of_one_slice():
    case = viewer_case(make_maps((20, 18)), "run", {})
    assert case["shape"] == [20, 18, 1]
    assert case["spacing"] == [1.0, 1.5, 1.0]


def test_images_of_the_same_case_are_stored_once():
    cases = [viewer_case(make_maps(), run, {}) for run in ("a", "b")]
    first, second = share_images(cases)
    assert "images" in first
    assert second["images_from"] == 0
    assert "images" not in second
    assert second["labels"] == cases[1]["labels"]


def test_niivue_is_the_released_file():
    code = gzip.decompress(base64.b64decode(niivue_script()))
    assert hashlib.sha256(code).hexdigest() == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
