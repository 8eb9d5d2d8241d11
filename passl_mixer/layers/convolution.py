"""The convolution of every backbone: Paddle's parameters, and on each device the quickest way to compute it.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""
from paddle import nn

from passl_mixer.layers.basic import linear, permute
from passl_mixer.ops import cpu as ops
from passl_mixer.ops import gpu_ops, map_ops, wave_ops


class Conv2D(nn.Conv2D):
    """``nn.Conv2D`` with zeros around the image; on the CPU one that uses every core, without groups or depth-wise,
    or along one axis of [B, H, W, C] with two channels a group and no bias (Wave-MLP); 1 x 1 there is a linear map.

    Args:
        in_chans, out_chans: channels in and out.
        kernel: side of the kernel, or (height, width).
        stride, padding, groups, weight_attr, bias_attr: as in ``nn.Conv2D``.
    """

    def __init__(self, in_chans: int, out_chans: int, kernel, *, stride: int = 1, padding=0, groups: int = 1,
                 weight_attr=None, bias_attr=None):
        super().__init__(in_chans, out_chans, kernel, stride=stride, padding=padding, groups=groups,
                         weight_attr=weight_attr, bias_attr=bias_attr)
        self.stride, self.padding, self.groups = stride, padding, groups
        self.on_bhwc = False        # whether x is [B, H, W, C] unless said otherwise: see layout.py

    def forward(self, x, channels_last: bool = False):
        """The convolution of [B, C, H, W]; of [B, H, W, C] with ``channels_last``: quicker on a GPU, and depth-wise."""
        channels_last = channels_last or self.on_bhwc
        if channels_last and gpu_ops.on_gpu(x):
            return gpu_ops.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding,
                                  groups=self.groups)
        if self._keeps_size_depthwise() and ops.compiled(x):
            x_bhwc = x if channels_last else permute(x, [0, 2, 3, 1])
            y_bhwc = map_ops.depthwise(x_bhwc, self.weight, self.bias)
            return y_bhwc if channels_last else permute(y_bhwc, [0, 3, 1, 2])
        if channels_last and self._is_linear() and ops.compiled(x):
            channels, inputs = self.weight.shape[:2]
            return linear(x, permute(self.weight.reshape([channels, inputs]), [1, 0]), self.bias)
        if channels_last and self._mixes_pairs_along_an_axis() and ops.compiled(x):
            return wave_ops.pair_mix(x, self.weight)
        x_bchw = permute(x, [0, 3, 1, 2]) if channels_last else x
        if isinstance(self.padding, int) and map_ops.convolves(x_bchw, self.groups):
            y_bchw = map_ops.conv2d(x_bchw, self.weight, self.bias, stride=self.stride, padding=self.padding)
        else:
            y_bchw = nn.Conv2D.forward(self, x_bchw)  # Paddle 2.6 cannot trace super()
        return permute(y_bchw, [0, 2, 3, 1]) if channels_last else y_bchw

    def _is_linear(self) -> bool:
        return self.groups == self.stride == 1 and self.padding == 0 and self.weight.shape[2:] == [1, 1]

    def _keeps_size_depthwise(self) -> bool:
        channels, _, height, width = self.weight.shape
        return (self.groups == channels == self._in_channels and height == width
                and self.padding == height // 2 and height % 2 == 1 and self.stride == 1)

    def _mixes_pairs_along_an_axis(self) -> bool:
        channels, inputs, height, width = self.weight.shape
        return (inputs == 2 and self.groups == channels and 1 in (height, width) and height * width % 2 == 1
                and self.bias is None and self.stride == 1 and self.padding == [height // 2, width // 2])
