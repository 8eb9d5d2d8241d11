"""The convolution of every family: Paddle's parameters, computed by ``ops.conv2d``.

Shapes: B images, H x W positions, C channels.
"""
import math
from typing import Optional, Sequence, Union

from paddle import nn

from passl_mixer import ops
from passl_mixer.layers.basic import Linear
from passl_mixer.layers.initialisers import attr, torch_uniform


class Conv2D(nn.Conv2D):
    """``nn.Conv2D`` with zeros around the map, in either layout.

    Args:
        in_chans, out_chans: channels in and out.
        kernel: side of the kernel, or (height, width).
        stride: positions between outputs.
        padding: zeros at every edge, or the pair (along the height, along the width).
        groups, weight_attr, bias_attr: as in ``nn.Conv2D``.
    Attributes:
        data_format: layout of the maps unless a call says otherwise, "NCHW" or "NHWC"; ``set_data_format`` changes it.
    """

    def __init__(self, in_chans: int, out_chans: int, kernel, *, stride: int = 1, padding=0, groups: int = 1,
                 weight_attr=None, bias_attr=None):
        super().__init__(in_chans, out_chans, kernel, stride=stride, padding=padding, groups=groups,
                         weight_attr=weight_attr, bias_attr=bias_attr)
        self.stride, self.padding, self.groups = stride, padding, groups
        self.data_format = "NCHW"

    def forward(self, x, data_format: Optional[str] = None):
        """The convolution of x [B, C, H, W], or [B, H, W, C] with ``data_format`` "NHWC"; of the same layout."""
        return ops.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding, groups=self.groups,
                          data_format=data_format or self.data_format)


def torch_conv(in_chans: int, out_chans: int, kernel: Union[int, Sequence[int]], *, stride: int = 1, padding=0,
               groups: int = 1, bias: bool = True) -> Conv2D:
    """Convolution with the initial weights that PyTorch gives one: what authors who chose none trained with.

    Args:
        in_chans, out_chans, kernel, stride, padding, groups: as of ``Conv2D``.
        bias: whether a bias is added.
    """
    area = kernel ** 2 if isinstance(kernel, int) else math.prod(kernel)
    init = attr(torch_uniform(in_chans // groups * area))
    return Conv2D(in_chans, out_chans, kernel, stride=stride, padding=padding, groups=groups, weight_attr=init,
                  bias_attr=init if bias else False)


def torch_pointwise(in_chans: int, out_chans: int, *, bias: bool = True) -> Linear:
    """Linear map over the last axis, which starts as a 1 x 1 convolution of PyTorch does.

    Args:
        in_chans, out_chans: channels in and out.
        bias: whether a bias is added.
    """
    init = torch_uniform(in_chans)
    return Linear(in_chans, out_chans, bias=bias, init=init, bias_init=init)
