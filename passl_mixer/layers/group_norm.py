"""GroupNorm of one group on maps [B, H, W, C], computed by ``ops.group_norm1``."""
from paddle import nn

from passl_mixer import ops


class GroupNorm1(nn.GroupNorm):
    """GroupNorm of one group: all positions and channels of an image together, then a scale and shift per channel.

    Args:
        width: channels C.
    Source: Wu and He 2018, arXiv:1803.08494, with G = 1.
    """

    def __init__(self, width: int):
        super().__init__(1, width, data_format="NHWC")

    def forward(self, x):
        """Maps x [B, H, W, C], or positions in a row [B, H * W, C], normalised, of their shape."""
        return ops.group_norm1(x, self.weight, self.bias, self._epsilon)

    def flat(self, x):
        """The same of images as rows [B, H * W * C], for programs."""
        return ops.group_norm1_of_rows(x, self.weight, self.bias, self._epsilon)
