"""CycleMLP with another map in the place of every CycleFC, the weights kept: what CycleFC costs is seen beside them."""
import paddle
from paddle import nn
from paddle.vision.ops import deform_conv2d

from passl_mixer import ops
from passl_mixer.backbones.cycle_mlp import CycleFC
from passl_mixer.errors import BadInput, nearest

# Where CycleFC reads channel i from, by i % 3; positions along its axis.
READS = (0, 1, -1)


class DeformableFC(nn.Layer):
    """CycleFC as the paper's authors wrote it, a 1 x 1 deformable convolution whose offsets never change.

    Args:
        fc: the CycleFC whose parameters it takes.
    """

    def __init__(self, fc: CycleFC):
        super().__init__()
        self.weight, self.bias = fc.weight, fc.bias
        offsets = [[0.0, 0.0] for _ in range(fc.weight.shape[0])]       # (height, width) of every channel
        for channel, pair in enumerate(offsets):
            pair[fc.axis - 1] = float(READS[channel % 3])
        self.register_buffer("offset", paddle.to_tensor(offsets).reshape([1, -1, 1, 1]))

    def forward(self, x_bhwc):
        """[B, H, W, C] -> [B, H, W, C]."""
        batch, height, width, channels = x_bhwc.shape
        y_bchw = deform_conv2d(
            x_bhwc.transpose([0, 3, 1, 2]), self.offset.expand([batch, 2 * channels, height, width]),
            self.weight.t().reshape([channels, channels, 1, 1]), self.bias, deformable_groups=channels)
        return y_bchw.transpose([0, 2, 3, 1])


class PlainFC(nn.Layer):
    """The linear map of a CycleFC without its shifts: another function, the least that the same products can cost."""

    def __init__(self, fc: CycleFC):
        super().__init__()
        self.weight, self.bias = fc.weight, fc.bias

    def forward(self, x_bhwc):
        """[B, H, W, C] -> [B, H, W, C]."""
        return ops.linear(x_bhwc, self.weight, self.bias)


VARIANTS = {"deformable": DeformableFC, "plain": PlainFC}


def replace_cycle_fc(backbone: nn.Layer, variant) -> None:
    """Replace every CycleFC of a backbone, in place.

    Args:
        backbone: any; one with CycleFC, unless ``variant`` is None.
        variant: "deformable", "plain", or None to leave all as it is.
    Raises:
        BadInput: an unknown variant, or a backbone without a CycleFC.
    """
    if variant is None:
        return
    if variant not in VARIANTS:
        raise BadInput(f"unknown variant {variant!r}{nearest(variant, VARIANTS)}")
    holders = [(layer, name, child) for layer in backbone.sublayers(include_self=True)
               for name, child in layer.named_children() if isinstance(child, CycleFC)]
    if not holders:
        raise BadInput(f"{type(backbone).__name__} has no CycleFC to replace; expected a CycleMLP")
    for layer, name, child in holders:
        setattr(layer, name, VARIANTS[variant](child))
