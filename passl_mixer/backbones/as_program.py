"""AS-MLP for programs on a CPU: its norms are LayerNorms of flat images, and so is what its blocks add to.

A norm of whole images is one LayerNorm of [B, H * W * C] where scale and shift are repeated at every position, which
the predictor does once. A map that is used twice, such as the input of a block, is copied to be seen in another shape,
one that is used once is not: so blocks flatten their input, and add to and normalise that.

Shapes: B images, H x W positions, C channels; all but B known when the program is traced.
"""
import copy

import paddle
import paddle.nn.functional as F
from paddle import nn


def flat_norm(norm, x):
    """An ``ImageNorm`` of images as rows [B, H * W * C], of their shape."""
    size, channels = x.shape[1], norm.weight.shape[0]
    scale, shift = (paddle.tile(vector, [size // channels]) for vector in (norm.weight, norm.bias))
    return F.layer_norm(x, [size], scale, shift, norm._epsilon)


class FlatNorm(nn.Layer):
    """An ``ImageNorm``, of [B, H, W, C]."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x_bhwc):
        """``x_bhwc`` normalised."""
        return flat_norm(self.norm, x_bhwc.flatten(1)).reshape([-1, *x_bhwc.shape[1:]])


class FlatBlock(nn.Layer):
    """An ``AxialShiftBlock`` in evaluation mode, from [B, H, W, C] to the same."""

    def __init__(self, block):
        super().__init__()
        self.block = block
        block.mixer.norm1, block.mixer.norm2 = FlatNorm(block.mixer.norm1), FlatNorm(block.mixer.norm2)

    def forward(self, x_bhwc):
        """As of ``AxialShiftBlock``."""
        block, height, width, channels = self.block, *x_bhwc.shape[1:]
        x = x_bhwc.flatten(1)
        x = x + block.mixer(flat_norm(block.norm1, x).reshape([-1, height, width, channels])).flatten(1)
        rows = flat_norm(block.norm2, x).reshape([-1, height * width, channels])
        return (x + block.fc2(block.fc1(rows, "gelu")).flatten(1)).reshape([-1, height, width, channels])


def with_flat_norms(network):
    """A copy of an ASMLP with ``FlatBlock`` and ``FlatNorm``; for tracing in evaluation mode, not for training."""
    network = copy.deepcopy(network)
    network.stages = nn.LayerList([nn.LayerList([FlatBlock(block) for block in blocks]) for blocks in network.stages])
    for merging in network.downsamples:
        merging.norm = FlatNorm(merging.norm)
    network.stem_norm, network.norm = FlatNorm(network.stem_norm), FlatNorm(network.norm)
    return network
