"""One PASSION step of the published networks: losses, gate and gradient norms are those of the published code."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medmap_monai.checkpoints.key_maps import published_keys
from medmap_monai.losses.label_maps import label_maps
from medmap_monai.losses.prototype import PrototypeLoss
from medmap_monai.methods.passion import Passion
from medmap_monai.methods.preference_balance import PreferenceBalance
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.networks.m2ftrans import M2FTrans
from medmap_monai.networks.mmformer import MMFormer
from medmap_monai.networks.rfnet import RFNet
from tests.networks.golden import formula_input, formula_labels, with_formula_weights

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "passion_train32.json").read_text())
NETWORKS: dict[str, Callable[[], ModalityNetwork]] = {
    "rfnet": RFNet,
    "mmformer": lambda: MMFormer(position_size=2, variant="passion-published"),
    "m2ftrans": lambda: M2FTrans(position_size=2),
}


class Golden:
    """The published step of one network and mode, computed in float64, and how far ours may be from it."""

    def __init__(self, name: str, mode: str, dtype: torch.dtype) -> None:
        self.inputs = GOLDEN[name]
        self.values = self.inputs[mode]
        self.dtype = dtype

    def check(self, key: str, got: Tensor | float) -> None:
        expected = np.asarray(self.values[key])
        largest = float(np.abs(expected).max())
        if self.dtype == torch.float64:
            tolerance = 1e-9 * largest
        else:
            relative = 2e-3 if key.startswith("gradnorm/") else 1e-5
            tolerance = max(10 * self.values["f32_maxabsdiff"].get(key, 0.0), relative * largest)
        np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=tolerance, err_msg=key)


def published_step(name: str, mode: str, golden: Golden) -> tuple[Passion, tuple[Tensor, ...]]:
    """The method with every switch as published, and the inputs of the golden step."""
    network = with_formula_weights(NETWORKS[name]())
    balance = PreferenceBalance(4, granularity="batch_sum")
    balance.beta.copy_(torch.tensor(golden.inputs["imb_beta"]))
    method = Passion(
        network,
        mode,
        modality_weight=golden.inputs["modal_weight"] if mode == "idt" else None,
        balance=balance,
        reduction="sum",
        prototype_loss=PrototypeLoss(shared_classes=True),
    )
    visible = torch.tensor(golden.inputs["mask"])
    present = visible if mode == "idt" else torch.ones_like(visible)
    return method.eval().to(golden.dtype), (
        formula_input(2, 4, 32).to(golden.dtype),
        visible,
        present,
        formula_labels(2, 32),
    )


@pytest.mark.golden
# float64 is exact but slow: once per network
@pytest.mark.parametrize(("mode", "dtype"), [("idt", torch.float64), ("pdt", torch.float32)])
@pytest.mark.parametrize("name", NETWORKS)
def test_losses_gate_and_gradients_are_the_published_ones(name: str, mode: str, dtype: torch.dtype) -> None:
    golden = Golden(name, mode, dtype)
    method, inputs = published_step(name, mode, golden)
    rows: dict[str, Tensor] = {}
    students = method._students

    def remember(*args: Any) -> dict[str, Tensor]:
        rows.update(students(*args))
        return rows

    method._students = remember  # type: ignore[method-assign, assignment]
    output = method(*inputs)
    loss = torch.stack(list(output.losses.values())).sum()
    loss.backward()

    golden.check("fuse_loss", output.losses["fused"].detach())
    golden.check("prm_loss", output.losses["deep"].detach())
    for key, ours in {"kl": "pixel", "proto": "prototype", "dist": "distance"}.items():
        golden.check(key, rows[ours].detach())
    preference = method.balance.preference(rows["distance"], inputs[2])
    golden.check("rp_iter", -preference.sum(0))
    assert torch.equal(method.balance.gate(preference, inputs[2]), torch.tensor(golden.values["rp_mask"]) & inputs[2])
    golden.check("total_loss", loss.detach())

    names = published_keys(method.network)
    squares: dict[str, float] = defaultdict(float)
    for key, parameter in method.network.named_parameters():
        assert parameter.grad is not None, key
        squares[names[key].split(".")[0]] += float(parameter.grad.double().square().sum())
    parts = {key.split("/")[1] for key in golden.values if key.startswith("gradnorm/")}
    assert set(squares) == parts
    for part in parts:
        golden.check(f"gradnorm/{part}", squares[part] ** 0.5)

    with torch.no_grad():
        features = method.network.prepare(method.network.encode(inputs[0], inputs[2]))
        sample, modality = torch.nonzero(inputs[2], as_tuple=True)
        logits = method.network.decode_unimodal(features, sample, modality)
        label = label_maps(inputs[3], 4, dtype)
        values = method.segmentation_loss.rows(logits, label.rows(sample))
        unimodal = torch.zeros(2, 4, dtype=dtype).index_put((sample, modality), values)
        deep = method._deep(method.network.decode(features, inputs[1]), label)
    golden.check("sep", unimodal)
    golden.check("nopassion_sep", unimodal)
    golden.check("prm", deep[:, None])
    golden.check("nopassion_prm", deep[:, None])
