"""The convolution unit of the published backbones: convolution, instance norm and LeakyReLU(0.2), in either order."""

from __future__ import annotations

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from medmap_monai.networks.blocks.fast_conv import convolve, reflect_pad, zero_pad
from medmap_monai.networks.blocks.norm_leaky import norm_leaky


class PlainConv(nn.Module):
    """Convolution with bias, stride and one voxel of padding per 3x3x3 kernel (none for 1x1x1).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: 1 or 3.
        stride: 1 or 2.
        padding_mode: ``"reflect"`` or ``"zeros"``.
        groups: groups of channels that are convolved apart.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        padding_mode: str = "reflect",
        groups: int = 1,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        if kernel_size not in (1, 3) or padding_mode not in ("reflect", "zeros"):
            raise ValueError(
                f"kernel_size must be 1 or 3 and padding_mode 'reflect' or 'zeros', got {kernel_size}, {padding_mode!r}"
            )
        self.conv = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size, stride, groups=groups)
        nn.init.kaiming_normal_(self.conv.weight)  # as published; biases keep PyTorch's default
        self.stride = stride
        self.groups = groups
        self.pads = kernel_size == 3
        self.reflects = padding_mode == "reflect"

    def pad(self, x: Tensor) -> Tensor:
        """The input with the voxels that the kernel needs around it."""
        if not self.pads:
            return x
        return reflect_pad(x) if self.reflects else zero_pad(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.conv.weight, self.conv.bias, self.groups)

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        """The unit with weights from elsewhere, such as those of several modalities as groups."""
        return convolve(self.pad(x), weight, bias, self.stride, groups)


class ConvUnit(PlainConv):
    """Convolution -> instance norm -> LeakyReLU(0.2), or with ``pre_norm`` instance norm -> LeakyReLU(0.2) ->
    convolution; instance norm has neither parameters nor running statistics.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: 1 or 3.
        stride: 1 or 2.
        padding_mode: ``"reflect"`` or ``"zeros"``.
        pre_norm: norm and activation come first.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        padding_mode: str = "reflect",
        pre_norm: bool = False,
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, kernel_size, stride, padding_mode)
        self.pre_norm = pre_norm

    def activate(self, x: Tensor, consume: bool = False) -> Tensor:
        """Instance norm and LeakyReLU(0.2); ``consume`` as in :func:`norm_leaky`."""
        return norm_leaky(x, 0.2, consume=consume)

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        if self.pre_norm:
            x = self.activate(x)
        x = convolve(self.pad(x), weight, bias, self.stride, groups)
        return x if self.pre_norm else self.activate(x, consume=True)
