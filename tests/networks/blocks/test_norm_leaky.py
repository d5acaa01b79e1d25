"""Instance norm with LeakyReLU as TorchScript runs it."""

from __future__ import annotations

import torch

from medmap_monai.networks.blocks.norm_leaky import norm_leaky


def test_a_scripted_norm_sums_as_the_eager_one_does() -> None:
    """Half a million float32 added one after the other are off by 1e-4, which deep networks multiply."""
    scripted = torch.jit.script(norm_leaky)
    for shape in ((2, 3, 9, 8, 7), (1, 4, 6, 5)):
        layout = torch.channels_last_3d if len(shape) == 5 else torch.channels_last
        x = (5 + torch.randn(shape)).contiguous(memory_format=layout).requires_grad_()
        eager, found = norm_leaky(x), scripted(x)
        assert torch.equal(found, eager)
        assert found.stride() == eager.stride()
        weight = torch.randn_like(eager)
        (expected,) = torch.autograd.grad((eager * weight).sum(), x)
        (gradient,) = torch.autograd.grad((found * weight).sum(), x)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
