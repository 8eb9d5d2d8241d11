"""Max-pooling of maps, computed by ``ops.max_pool2d``.

Shapes: B images, C channels, H x W positions.
"""
from typing import Optional

from paddle import nn

from passl_mixer import ops


class MaxPool2D(nn.MaxPool2D):
    """``nn.MaxPool2D`` of one kernel side, stride and padding; of equal pixels in a window the first gets the gradient.

    Args:
        kernel: side of the window in pixels.
        stride: pixels between windows.
        padding: pixels that windows reach over the edges; less than ``kernel``.
    Attributes:
        data_format: layout of the maps, "NCHW" or "NHWC"; ``set_data_format`` changes it.
    """

    def __init__(self, kernel: int, *, stride: int, padding: int = 0):
        super().__init__(kernel, stride, padding)
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.data_format = "NCHW"

    def forward(self, x, data_format: Optional[str] = None):
        """The largest of each window of x [B, C, H, W] or [B, H, W, C]; of the same layout."""
        return ops.max_pool2d(x, self.kernel, stride=self.stride, padding=self.padding,
                              data_format=data_format or self.data_format)
