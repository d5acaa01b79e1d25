"""RFNet, mmFormer and M2FTrans with formula weights against what the published code computes.

``backbones_train32.npz`` is committed; the full figures (``*_fwd80_f32.npz``) are compared where they lie beside the
repository. Losses and gradients: ``tests/methods/test_passion_golden.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from tests.networks.golden import SHARED, formula_input, golden, hash_unit, statistics, with_formula_weights

pytestmark = pytest.mark.golden

# one step of training: patches of 32, so positional embeddings of 2 tokens per axis
STEP: dict[str, Callable[[], ModalityNetwork]] = {
    "rfnet": RFNet,
    "mmformer": lambda: MMFormer(position_size=2, variant="passion-published"),
    "m2ftrans": lambda: M2FTrans(position_size=2),
}
FULL: dict[str, Callable[[], ModalityNetwork]] = {"rfnet": RFNet, "mmformer": MMFormer, "m2ftrans": M2FTrans}


def test_formula_is_the_one_of_the_published_figures() -> None:
    weights = hash_unit("flair_encoder.e1_c1.conv.weight", 3) * np.sqrt(3 / 27)
    np.testing.assert_allclose(weights, [-0.164243996, 0.123562142, 0.0803242177], rtol=1e-6)
    image = formula_input(1, 4, 80)
    np.testing.assert_allclose(image.flatten()[:3], [-0.456016719, -0.303845227, -0.250340164], rtol=1e-6)
    assert float(image.double().sum()) == pytest.approx(-1594.8192, abs=1e-3)


@pytest.mark.parametrize("name", sorted(STEP))
def test_fused_path_and_students_at_32(name: str) -> None:
    expected = golden("backbones_train32.npz")
    network = with_formula_weights(STEP[name]()).double()
    mask = torch.from_numpy(expected["mask"])
    with torch.no_grad():
        features = network.prepare(network.encode(formula_input(2, 4, 32).double(), torch.ones_like(mask)))
        logits = network.decode(features, mask).logits[..., 2::8, 2::8, 2::8]
        sample, modality = torch.nonzero(torch.ones_like(mask), as_tuple=True)
        students = network.decode_student(features, sample, modality, mask).logits
    np.testing.assert_allclose(logits, expected[f"{name}/logits"], atol=1e-6, rtol=0)
    students = students.unflatten(0, (2, 4))[..., 4::16, 4::16, 4::16]
    np.testing.assert_allclose(students, expected[f"{name}/students"], atol=2e-6, rtol=0)  # stored as float32


@pytest.mark.parametrize("name", sorted(FULL))
def test_six_masks_at_80(name: str) -> None:
    if not (SHARED / f"{name}_fwd80_f32.npz").is_file():
        pytest.skip("the full golden figures are not on this machine")
    expected = golden(f"{name}_fwd80_f32.npz")
    network = with_formula_weights(FULL[name]())

    def check(value: torch.Tensor, key: str) -> None:
        np.testing.assert_allclose(statistics(value), expected[key], atol=1e-4, rtol=0, err_msg=key)

    with torch.no_grad():
        features = network.prepare(network.encode(formula_input(1, 4, 80), torch.ones(1, 4, dtype=torch.bool)))
        for level, maps in enumerate(features.pyramid):
            flair = maps[0, 0]
            step = max(1, flair.shape[1] // 5)
            check(flair, f"enc_flair/x{level + 1}/stats")
            lattice = expected[f"enc_flair/x{level + 1}/sub"]
            np.testing.assert_allclose(flair[:8, ::step, ::step, ::step], lattice, atol=1e-4, rtol=0)
        for mask in ("1111", "1000", "0001", "0100", "0110", "1011"):
            output = network.decode(features, torch.tensor([[flag == "1" for flag in mask]]))
            logits = output.logits[0]
            lattice = expected[f"{mask}/logits_s8"]
            np.testing.assert_allclose(logits[:, 4::8, 4::8, 4::8], lattice, atol=1e-4, rtol=0, err_msg=mask)
            means = logits.double().mean((1, 2, 3))
            np.testing.assert_allclose(means, expected[f"{mask}/logits_chan_mean"], atol=1e-4, rtol=0)
            check(logits, f"{mask}/logits_stats")
            histogram = torch.bincount(logits.argmax(0).flatten(), minlength=4).numpy()
            assert np.abs(histogram - expected[f"{mask}/argmax_hist"]).max() <= 5
            for k, deep in enumerate(output.deep_logits):
                check(deep, f"{mask}/prm{k + 1}_stats")
            for k, decoded in enumerate(output.features):
                check(decoded, f"{mask}/de{k + 1}_stats")
            counts = [sum(f"{mask}/{kind}{k}_stats" in expected for k in range(1, 9)) for kind in ("prm", "de")]
            assert counts == [len(output.deep_logits), len(output.features)]
