"""DMAFNet, and DMAF as the fusion of ModalityUNet: the network contract."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from medmap_monai.networks.blocks.dmaf import DMAFFusion
from medmap_monai.networks.blocks.fusion import ConcatFusion
from medmap_monai.networks.dmafnet import DMAFNet
from medmap_monai.networks.unet import ModalityUNet

CASES = [  # arguments, image shape
    ({"spatial_dims": 3, "in_channels": 4, "out_channels": 4}, (2, 4, 8, 8, 12)),
    ({"spatial_dims": 2, "in_channels": 3, "out_channels": 6, "deep_supervision": 0}, (2, 3, 16, 12)),
    ({"spatial_dims": 3, "in_channels": 1, "out_channels": 2}, (1, 1, 4, 4, 4)),
    ({"spatial_dims": 2, "in_channels": 5, "out_channels": 3, "dmaf_levels": [-1, 0]}, (3, 5, 8, 8)),
    ({"spatial_dims": 2, "in_channels": 2, "out_channels": 3, "dmaf": {"restore": "subvoxel"}}, (2, 2, 20, 20)),
]


def _net(**options: object) -> DMAFNet:
    torch.manual_seed(0)
    kwargs = {"channels": (4, 8, 12), "deep_supervision": 1, **options}
    return DMAFNet(**kwargs).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("options", "shape"), CASES)
def test_shapes_of_all_outputs(options, shape):
    net = _net(**options)
    image = torch.randn(shape)
    classes = options["out_channels"]
    assert net(image).shape == (shape[0], classes, *shape[2:])
    features = net.encode(image)
    output = net.decode(features, torch.ones(shape[:2], dtype=torch.bool))
    assert [f.shape[1] for f in output.fused] == [4, 8, 12]
    assert [f.shape[2:] for f in output.fused] == [f.shape[3:] for f in features.pyramid]
    assert len(output.deep_logits) == options.get("deep_supervision", 1)
    assert output.features[0].shape[2:] == shape[2:]
    sample, modality = torch.tensor([0, shape[0] - 1]), torch.tensor([shape[1] - 1, 0])
    assert net.has_unimodal_decoder
    assert net.decode_unimodal(features, sample, modality).shape == (2, classes, *shape[2:])


@pytest.mark.parametrize(("options", "shape"), CASES)
@pytest.mark.parametrize("training", [False, True])
def test_absent_content_has_no_influence(options, shape, training):
    net = _net(**options, **({} if "dmaf" in options else {"dmaf": {"dropout": 0.0}})).train(training)
    image = torch.randn(shape)
    mask = torch.zeros(shape[:2], dtype=torch.bool)
    mask[:, 0] = True
    if shape[1] > 2:
        mask[0, 1] = True
    states = []
    for content in (0.0, float("nan"), 7.0):
        filled = torch.where(mask.reshape(*shape[:2], *[1] * (len(shape) - 2)), image, torch.tensor(content))
        torch.manual_seed(1)  # dropout
        states.append(net(filled, mask))
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_mask_is_derived_and_an_empty_row_is_background():
    net = _net(**CASES[0][0])
    image = torch.randn(2, 4, 8, 8, 8)
    image[0, 1] = 0
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]]).bool()
    assert torch.equal(net(image), net(image, mask))
    empty = net(image, torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0]]).bool())
    torch.testing.assert_close(empty[0], net(image, mask)[0])
    assert (empty[1].argmax(0) == 0).all()


def test_a_row_does_not_depend_on_its_batch_and_features_serve_every_subset():
    net = _net(**CASES[0][0])
    image = torch.randn(1, 4, 8, 8, 8)
    masks = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]]).bool()
    features = net.prepare(net.encode(image, torch.ones(1, 4, dtype=torch.bool)))
    together = net.decode(features, masks, torch.zeros(3, dtype=torch.int64)).logits
    for row in range(3):
        torch.testing.assert_close(net(image, masks[row : row + 1])[0], together[row], rtol=1e-3, atol=1e-4)


def test_a_single_modality_goes_through_unchanged():
    net = _net(**CASES[0][0])
    image = torch.randn(2, 4, 8, 8, 8)
    mask = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1]]).bool()
    features = net.encode(image, mask)
    for fused, level in zip(net.decode(features, mask).fused, features.pyramid, strict=True):
        assert torch.equal(fused, torch.stack([level[0, 1], level[1, 3]]))


def test_modality_order_is_a_matter_of_names():
    """Permuting channels together with what belongs to each modality changes nothing."""
    net, order = _net(**CASES[0][0]), [2, 0, 3, 1]
    other = _net(**CASES[0][0])
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        for m, source in enumerate(order):
            other.encoders[m].load_state_dict(net.encoders[source].state_dict())
        for fusion in other.fusions:
            fusion.modality_embedding.copy_(fusion.modality_embedding[order])
    image = torch.randn(2, 4, 8, 8, 8)
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]]).bool()
    torch.testing.assert_close(other(image[:, order], mask[:, order]), net(image, mask), rtol=1e-3, atol=1e-4)


def test_levels_choose_between_dmaf_and_concatenation():
    kinds = [type(f) for f in _net(**CASES[3][0]).fusions]
    assert kinds == [DMAFFusion, ConcatFusion, DMAFFusion]
    assert all(type(f) is DMAFFusion for f in _net(**CASES[0][0]).fusions)
    with pytest.raises(ValueError, match="levels 0"):
        _net(**{**CASES[0][0], "dmaf_levels": [3]})


def test_default_network_is_the_one_of_the_figures():
    net = DMAFNet(spatial_dims=3, in_channels=4, out_channels=4)
    assert net.stride == 16
    assert [len(f.layers) for f in net.fusions] == [4] * 5
    assert [f.modality_embedding.shape[1] for f in net.fusions] == [8, 16, 32, 64, 128]
    assert [f.grid for f in net.fusions] == [[5, 5, 5]] * 5


@pytest.mark.parametrize("options", [CASES[0][0], CASES[3][0]])
def test_scripted_and_traced_network_equal_eager(options):
    net = _net(**{**options, "dmaf": {"depth": 1, **options.get("dmaf", {})}})
    size = [4 * net.stride] * options["spatial_dims"]
    image = torch.randn(2, options["in_channels"], *size)
    mask = torch.ones(2, options["in_channels"], dtype=torch.bool)
    mask[1, 1:] = False
    torch.testing.assert_close(torch.jit.script(net)(image, mask), net(image, mask))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer points at shapes that it freezes
        traced = torch.jit.trace(net, (image, torch.ones_like(mask)))
    torch.testing.assert_close(traced(image, mask), net(image, mask), rtol=1e-3, atol=1e-4)


def test_onnx_equals_eager(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net = _net(spatial_dims=3, in_channels=3, out_channels=3, channels=(4, 8), deep_supervision=0, dmaf={"depth": 1})
    image, mask = torch.randn(2, 3, 8, 8, 8), torch.tensor([[1, 0, 1], [0, 1, 0]]).bool()
    path = tmp_path / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (image, mask), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path)
    inputs = {i.name: v.numpy() for i, v in zip(session.get_inputs(), (image, mask), strict=True)}
    np.testing.assert_allclose(session.run(None, inputs)[0], net(image, mask).detach(), rtol=1e-3, atol=1e-4)


def test_bfloat16_is_finite_and_size_is_free():
    net = _net(**CASES[0][0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # every convolution of stride 2 sees three or more voxels along the last axis: with fewer PyTorch's conv3d for
        # bfloat16 on a CPU (2.13) reads memory that nobody wrote, and is NaN now and then
        assert net(torch.randn(1, 4, 16, 8, 12)).isfinite().all()


@pytest.mark.parametrize(
    ("fusion", "kinds"),
    [
        ("concat", [ConcatFusion, ConcatFusion]),
        ("dmaf", [DMAFFusion, DMAFFusion]),
        (("dmaf", {"depth": 1}), [DMAFFusion, DMAFFusion]),
        (["concat", "dmaf"], [ConcatFusion, DMAFFusion]),
        (["concat", ["dmaf", {"depth": 1}]], [ConcatFusion, DMAFFusion]),
    ],
)
def test_fusion_of_the_unet(fusion, kinds):
    net = ModalityUNet(2, 3, 3, (4, 8), 0, fusion=fusion)
    assert [type(f) for f in net.fusions] == kinds
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("fusion", ["mean", ["dmaf"], ["concat", "dmaf", "dmaf"], ("dmaf", {"heads": 3})])
def test_bad_fusion_of_the_unet(fusion):
    with pytest.raises(ValueError, match=r"concat|one entry|multiple of heads"):
        ModalityUNet(2, 3, 3, (4, 8), 0, fusion=fusion)


def test_the_unet_without_dmaf_kept_the_names_of_its_weights():
    names = ModalityUNet(2, 3, 3, (4, 8), 0).state_dict()
    assert [name for name in names if "fusions" in name] == [
        "fusions.0.projection.conv.weight",
        "fusions.1.projection.conv.weight",
    ]
