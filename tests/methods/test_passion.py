from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from medmap_monai.losses.prototype import PrototypeLoss
from medmap_monai.methods.case_counts import CaseCounts
from medmap_monai.methods.medmap import MedMAP
from medmap_monai.methods.passion import Passion
from medmap_monai.methods.preference_balance import PreferenceBalance
from medmap_monai.methods.students import decode_students
from medmap_monai.networks.aligned import AlignedNetwork
from tests.methods.passion_cases import NETWORKS, batch, gradients, make, rfnet, total, unet


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("mode", ["idt", "idt_drop", "pdt"])
def test_every_backbone_trains_with_single_modality_samples_in_the_batch(network: str, mode: str) -> None:
    method = make(network, mode=mode)
    inputs = batch("111 001 111", "110 001 100") if mode != "idt" else batch("111 001 110")
    output = method(*inputs)
    assert output.pred.shape == (3, 3, 16, 16)
    expected = {"fused", "pixel", "prototype"}
    expected |= {"deep"} if network != "dmafnet" else set()
    expected |= {"unimodal"} if method.network.has_unimodal_decoder else set()
    assert set(output.losses) == expected
    assert total(output.losses).isfinite()
    for name, values in output.per_modality.items():
        assert values.shape == (3,), name
        assert not values.requires_grad, name
        assert not values.isinf().any(), name
    assert all(g.isfinite().all() for g in gradients(method, *inputs).values())
    method.on_epoch_end(0)
    assert all(b.isfinite().all() for name, b in method.named_buffers() if "epoch_" not in name)
    assert not torch.equal(method.balance.beta, torch.ones(3))


def test_one_line_of_json_wraps_any_network() -> None:
    config = {
        "method": {
            "_target_": "medmap_monai.methods.medmap.MedMAP",
            "method": {
                "_target_": "medmap_monai.methods.passion.Passion",
                "cases": {
                    "_target_": "medmap_monai.methods.case_counts.CaseCounts",
                    "modalities": ["flair", "t1ce", "t2"],
                    "total": 8,
                    "per_modality": {"t2": 2, "flair": 4, "t1ce": 8},
                },
                "balance": {
                    "_target_": "medmap_monai.methods.preference_balance.PreferenceBalance",
                    "modalities": 3,
                    "gate": "rp_positive",
                },
                "network": {
                    "_target_": "medmap_monai.networks.aligned.AlignedNetwork",
                    "network": {
                        "_target_": "medmap_monai.networks.rfnet.RFNet",
                        "spatial_dims": 2,
                        "in_channels": 3,
                        "out_channels": 3,
                        "base_width": 4,
                        "levels": 3,
                    },
                },
            },
        }
    }
    method = ConfigParser(config).get_parsed_content("method")
    assert isinstance(method, MedMAP)
    assert isinstance(method.method, Passion)
    assert method.method.omega.tolist() == [2.0, 1.0, 4.0]
    output = method(*batch())
    assert set(output.losses) == {"fused", "deep", "pixel", "prototype", "unimodal", "align"}
    total(output.losses).backward()


def test_published_switches_change_nothing_at_batch_size_one() -> None:
    balance = PreferenceBalance(3, granularity="batch_sum")
    published = make(balance=balance, reduction="sum", prototype_loss=PrototypeLoss(shared_classes=True))
    ours = make()
    for present in ("111", "011", "100"):
        inputs = batch(present)
        expected, got = gradients(published, *inputs), gradients(ours, *inputs)
        assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_batch_is_the_mean_of_its_samples() -> None:
    """A single-modality sample and one without the smallest class do not disturb their batch mates."""
    method = make()
    image, visible, present, label = batch("111 001 110")
    label[2][label[2] == 2] = 1
    together = gradients(method, image, visible, present, label)
    alone = [gradients(method, *(t[b : b + 1] for t in (image, visible, present, label))) for b in range(3)]
    for name, value in together.items():
        mean = torch.stack([g[name] for g in alone]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("mode", ["sequential", "checkpoint"])
@pytest.mark.parametrize("network", ["rfnet", "aligned unet"])
def test_ways_to_run_students_agree(network: str, mode: str) -> None:
    inputs = batch("111 010 101")
    expected, got = gradients(make(network), *inputs), gradients(make(network, students=mode), *inputs)
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-5)


def test_distillation_never_pulls_the_teacher() -> None:
    method = make(unimodal="off")
    inputs = batch("111 011")
    output = method(*inputs)
    output.pred.retain_grad()
    (output.losses["pixel"] + output.losses["prototype"]).backward()
    assert output.pred.grad is None
    assert any(p.grad.abs().max() > 0 for p in method.network.encoders[0].parameters() if p.grad is not None)


def test_an_absent_modality_gets_no_gradient_and_a_dropped_one_neither() -> None:
    idt = gradients(make(), *batch("011 001"))
    dropped = gradients(make(mode="idt_drop"), *batch("111 101", "011 001"))
    hidden = gradients(make(mode="pdt"), *batch("111 111", "011 001"))

    def largest(found: dict[str, torch.Tensor], encoder: int) -> float:
        return max(float(g.abs().max()) for n, g in found.items() if n.startswith(f"network.encoders.{encoder}."))

    assert largest(idt, 0) == 0
    assert largest(dropped, 0) == 0
    assert largest(hidden, 0) > 0  # complete data: its student is supervised all the same
    assert largest(idt, 2) > 0


def test_the_gate_decides_which_unimodal_and_prototype_losses_act() -> None:
    inputs = batch("111")
    method = make()
    output = method(*inputs)
    weak = output.per_modality["preference"] < 0
    assert output.per_modality["gate"].tolist() == weak.double().tolist()
    assert 0 < weak.sum() < 3
    assert torch.equal(output.per_modality["unimodal"].isnan(), ~weak)
    omega, values = torch.tensor([1.25, 2.0, 5.0]), output.per_modality
    torch.testing.assert_close(output.losses["unimodal"].detach(), (omega * values["unimodal"])[weak].sum())
    torch.testing.assert_close(output.losses["prototype"].detach(), 0.1 * (omega * values["prototype"])[weak].sum())
    torch.testing.assert_close(output.losses["pixel"].detach(), 0.5 * (omega * values["pixel"]).sum())
    method.balance.beta.copy_(torch.tensor([0.5, 1.0, 1.5]))
    again = method(*inputs)
    expected = 0.5 * (omega * method.balance.beta * values["pixel"]).sum()
    torch.testing.assert_close(again.losses["pixel"].detach(), expected)
    assert torch.equal(again.losses["prototype"], output.losses["prototype"])  # beta does not touch it
    opened = make(balance=PreferenceBalance(3, gate="off"))(*inputs)
    torch.testing.assert_close(opened.losses["unimodal"].detach(), (omega * opened.per_modality["unimodal"]).sum())
    assert not opened.per_modality["unimodal"].isnan().any()


def test_warm_up_trains_the_unimodal_loss_alone() -> None:
    method = make(balance=PreferenceBalance(3, warmup_epochs=2))
    method.on_epoch_start(1)
    inputs = batch("111 011")
    early = method(*inputs)
    assert {name for name, value in early.losses.items() if value != 0} == {"unimodal"}
    found = gradients(method, *inputs)
    moved = {name for name, g in found.items() if g.abs().max() > 0}
    assert all(name.startswith(("network.encoders", "network.unimodal_decoder")) for name in moved)
    assert any(name.startswith("network.unimodal_decoder") for name in moved)
    method.on_epoch_end(1)
    assert torch.equal(method.balance.beta, torch.ones(3))
    method.on_epoch_start(2)
    late = method(*inputs)
    assert set(late.losses) == set(early.losses)
    assert all(value != 0 for value in late.losses.values())
    students = make("unet", unimodal="student", balance=PreferenceBalance(3, warmup_epochs=1))
    assert {name for name, value in students(*inputs).losses.items() if value != 0} == {"unimodal"}


def test_without_passion_it_is_the_published_plain_step() -> None:
    off = PreferenceBalance(3, gate="off")
    method = make(mode="pdt", balance=off, weights={"pixel": 0, "prototype": 0})
    image, visible, present, label = batch("111 111", "110 001")
    output = method(image, visible, present, label)
    assert set(output.losses) == {"fused", "deep", "unimodal"}
    sample, modality = torch.nonzero(present, as_tuple=True)
    features = method.network.prepare(method.network.encode(image, present))
    logits = method.network.decode_unimodal(features, sample, modality)
    expected = sum(method.segmentation_loss(z[None], label[b][None]) for z, b in zip(logits, sample, strict=True)) / 2
    torch.testing.assert_close(output.losses["unimodal"], expected)


def test_students_can_be_supervised_where_there_is_no_unimodal_decoder() -> None:
    inputs = batch("111 011")
    assert "unimodal" not in make("unet")(*inputs).losses
    method = make("unet", unimodal="student", balance=PreferenceBalance(3, gate="off"))
    output = method(*inputs)
    image, _, present, label = inputs
    features = method.network.prepare(method.network.encode(image, present))
    students = decode_students(method.network, features, present)
    values = [
        method.omega[m] * method.segmentation_loss(z[None], label[b][None])
        for z, b, m in zip(students.output.logits, students.sample, students.modality, strict=True)
    ]
    torch.testing.assert_close(output.losses["unimodal"], torch.stack(values).sum() / 2)


@pytest.mark.parametrize("source", ["full", "available"])
def test_students_of_an_aligned_network_see_their_own_modality_alone(source: str) -> None:
    network = AlignedNetwork(rfnet(), training_source=source)
    image, _, present, _ = batch("111")
    changed = image.clone()
    changed[:, 1:] += 1
    outputs = []
    for x in (image, changed):
        features = network.train().prepare(network.encode(x, present))
        outputs.append(decode_students(network, features, present).output.logits[0])
    assert torch.equal(outputs[0], outputs[1])


def test_balance_moves_only_in_training_and_labels_may_carry_metadata() -> None:
    method = make().eval()
    image, visible, present, label = batch()
    with torch.no_grad():
        expected = method(image, visible, present, label)
    assert method.balance.iterations == 0
    method.train()
    tracked = method(image, visible, present, MetaTensor(label))
    assert method.balance.iterations == 1
    assert type(tracked.losses["fused"]) is torch.Tensor
    torch.testing.assert_close(tracked.losses["fused"].detach(), expected.losses["fused"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_gives_finite_float32_losses(dtype: torch.dtype) -> None:
    method = make()
    with torch.autocast("cpu", dtype=dtype):
        output = method(*batch("111 010"))
    for name, value in output.losses.items():
        assert value.dtype == torch.float32, name
        assert value.isfinite(), name


def test_every_parameter_gets_a_gradient_when_all_gates_are_closed() -> None:
    found = gradients(make(), *batch("100 010"))
    decoder = [g for name, g in found.items() if name.startswith("network.unimodal_decoder")]
    assert decoder
    assert all(g.abs().max() == 0 for g in decoder)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mode": "ipdt"}, "idt_drop"),
        ({"unimodal": "separate"}, "student"),
        ({"students": "parallel"}, "checkpoint"),
        ({"reduction": "none"}, "sum"),
        ({"weights": {"pixels": 1.0}}, r"pixels.*allowed are \['deep', 'pixel', 'prototype', 'unimodal'\]"),
        ({"modality_weight": [1.0, 2.0]}, "the network has 3 modalities, omega has 2"),
        ({"modality_weight": None}, r"count_cases\), or modality_weight \[1.0, 1.0, 1.0\]"),
        ({"unimodal": "decoder"}, "ModalityUNet has no unimodal decoder: give unimodal='student'"),
        ({"balance": PreferenceBalance(4)}, "the balance has 4 modalities, the network 3"),
        ({"balance": PreferenceBalance(3, warmup_epochs=1)}, "warm-up trains the unimodal loss alone"),
    ],
)
def test_bad_configurations_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Passion(unet(), **{"modality_weight": [1.0] * 3, **kwargs})


def test_a_sample_without_visible_modality_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"without any visible modality: batch rows \[1\]"):
        make()(*batch("111 110", "110 000"))


def test_cases_give_omega_and_pdt_needs_none() -> None:
    cases = CaseCounts(("a", "b", "c"), 10, [10, 5, 2])
    assert Passion(rfnet(), cases=cases).omega.tolist() == [1.0, 2.0, 5.0]
    assert Passion(rfnet(), mode="pdt", cases=cases).omega.tolist() == [1.0, 1.0, 1.0]
