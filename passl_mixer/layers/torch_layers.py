"""Layers with the initial weights that PyTorch gives a convolution: what authors who chose none trained with."""
import math
from typing import Sequence, Union

from passl_mixer.layers.basic import Linear, attr, torch_uniform
from passl_mixer.layers.convolution import Conv2D


def torch_conv(in_chans: int, out_chans: int, kernel: Union[int, Sequence[int]], *, stride: int = 1, padding=0,
               groups: int = 1, bias: bool = True) -> Conv2D:
    """Convolution of [B, C, H, W]; patches side by side where ``stride`` is ``kernel``. Arguments as of ``Conv2D``."""
    area = kernel ** 2 if isinstance(kernel, int) else math.prod(kernel)
    init = attr(torch_uniform(in_chans // groups * area))
    return Conv2D(in_chans, out_chans, kernel, stride=stride, padding=padding, groups=groups, weight_attr=init,
                  bias_attr=init if bias else False)


def torch_pointwise(in_chans: int, out_chans: int, *, bias: bool = True) -> Linear:
    """Linear map over the last axis, which starts as a 1 x 1 convolution does."""
    init = torch_uniform(in_chans)
    return Linear(in_chans, out_chans, bias=bias, init=init, bias_init=init)
