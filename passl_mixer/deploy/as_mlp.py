"""AS-MLP for programs on a CPU: residual sums on flattened maps.

A program copies a map to reshape it if the map is used twice, as the input of a block is. So blocks flatten their input
once, and add to the flat tensor.

Shapes: B images, H x W positions, C channels; all but B known when the program is traced.
"""
import copy

from paddle import nn


class FlatBlock(nn.Layer):
    """An ``AxialShiftBlock`` in evaluation mode, from [B, H, W, C] to the same.

    Args:
        block: the ``AxialShiftBlock``.
    """

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x_bhwc):
        """As ``AxialShiftBlock.forward``; [B, H, W, C] to the same."""
        block, height, width, channels = self.block, *x_bhwc.shape[1:]
        x = x_bhwc.flatten(1)
        x = x + block.mixer(block.norm1.flat(x).reshape([-1, height, width, channels])).flatten(1)
        rows = block.norm2.flat(x).reshape([-1, height * width, channels])
        return (x + block.fc2(block.fc1(rows, "gelu")).flatten(1)).reshape([-1, height, width, channels])


def with_flat_sums(network):
    """A copy of an ASMLP with ``FlatBlock``; for tracing in evaluation mode, not for training."""
    network = copy.deepcopy(network)
    network.stages = nn.LayerList([nn.LayerList([FlatBlock(block) for block in blocks]) for blocks in network.stages])
    return network
