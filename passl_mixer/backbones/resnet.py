"""ResNet (He et al. 2015, arXiv:1512.03385): the comparison backbone, Paddle's numbers from Paddle's weights.

Deviation: ``stem: cifar`` is the 3 x 3 first convolution without max-pool of the CIFAR experiments of SimCLR
(arXiv:2002.05709, appendix B.9); ``stem: no_pool`` is the ImageNet stem without its max-pool, four times the
work (PASSL's SimCLR). Weights are random; nothing is downloaded. Initialisation is Paddle's. Parameters are named as in
``paddle.vision.models`` and torchvision, but for ``stages.0`` where they say ``layer1``.
"""
from typing import Optional

import paddle
from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput, nearest
from passl_mixer.layers.batch_norm import BatchNorm2D
from passl_mixer.layers.checks import check_images, check_positive
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.layers.data_format import from_nchw, layout_of, to_nchw
from passl_mixer.layers.pooling import MaxPool2D
from passl_mixer.layers.recompute import apply_block

STEMS = ("imagenet", "cifar", "no_pool")


class Block(nn.Layer):
    """``relu(x + BN(conv(... relu(BN(conv(x))))))``; the shortcut is a strided 1 x 1 convolution if sizes change.

    [B, in_chans, H, W] to [B, expansion * width, H / stride, W / stride]; channels last once turned.

    Args:
        in_chans: input channels.
        width: channels inside; the output has ``expansion`` times as many.
        stride: of the (first) 3 x 3 convolution: 1, or 2 at the start of a stage.
    """

    expansion: int

    def __init__(self, in_chans: int, width: int, stride: int):
        super().__init__()
        out_chans = self.expansion * width
        self.downsample = None if stride == 1 and in_chans == out_chans else nn.Sequential(
            Conv2D(in_chans, out_chans, 1, stride=stride, bias_attr=False), BatchNorm2D(out_chans))

    def shortcut(self, x, data_format: Optional[str]):
        """``x`` in the shape of the output; [B, in_chans, H, W] or channels last."""
        if self.downsample is None:
            return x
        conv, norm = self.downsample
        return norm(conv(x, data_format), data_format)


class BasicBlock(Block):
    """Two 3 x 3 convolutions (figure 2 and figure 5, left); maps [B, C, H, W].

    Args:
        in_chans, width, stride: as in ``Block``.
    """

    expansion = 1

    def __init__(self, in_chans: int, width: int, stride: int):
        super().__init__(in_chans, width, stride)
        self.conv1 = Conv2D(in_chans, width, 3, stride=stride, padding=1, bias_attr=False)
        self.bn1 = BatchNorm2D(width, post_act="relu")
        self.conv2 = Conv2D(width, width, 3, padding=1, bias_attr=False)
        self.bn2 = BatchNorm2D(width, post_act="relu")

    @property
    def last_norm(self):
        """The norm that ends the branch."""
        return self.bn2

    def forward(self, x, data_format: Optional[str] = None):
        """Maps x [B, in_chans, H, W], or channels last, to [B, expansion * width, H / stride, W / stride]."""
        y = self.bn1(self.conv1(x, data_format), data_format)
        return self.bn2(self.conv2(y, data_format), data_format, self.shortcut(x, data_format))


class BottleneckBlock(Block):
    """1 x 1, 3 x 3 and 1 x 1 convolutions (figure 5, right); maps [B, C, H, W].

    The stride is in the 3 x 3, as in Paddle and PyTorch.

    Args:
        in_chans, width, stride: as in ``Block``.
    """

    expansion = 4

    def __init__(self, in_chans: int, width: int, stride: int):
        super().__init__(in_chans, width, stride)
        self.conv1 = Conv2D(in_chans, width, 1, bias_attr=False)
        self.bn1 = BatchNorm2D(width, post_act="relu")
        self.conv2 = Conv2D(width, width, 3, stride=stride, padding=1, bias_attr=False)
        self.bn2 = BatchNorm2D(width, post_act="relu")
        self.conv3 = Conv2D(width, 4 * width, 1, bias_attr=False)
        self.bn3 = BatchNorm2D(4 * width, post_act="relu")

    @property
    def last_norm(self):
        """The norm that ends the branch."""
        return self.bn3

    def forward(self, x, data_format: Optional[str] = None):
        """Maps x [B, in_chans, H, W], or channels last, to [B, expansion * width, H / stride, W / stride]."""
        y = self.bn1(self.conv1(x, data_format), data_format)
        y = self.bn2(self.conv2(y, data_format), data_format)
        return self.bn3(self.conv3(y, data_format), data_format, self.shortcut(x, data_format))


# depth: (block, number of them in each stage); table 1
DEPTHS = {18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)), 50: (BottleneckBlock, (3, 4, 6, 3)),
          101: (BottleneckBlock, (3, 4, 23, 3)), 152: (BottleneckBlock, (3, 8, 36, 3))}


def _stages(block, depths) -> list:
    """The blocks of every stage, 64 channels wide in the first and twice as wide in each that follows."""
    stages, channels = [], 64
    for i, depth in enumerate(depths):
        width, blocks = 64 * 2 ** i, []
        for number in range(depth):
            blocks.append(block(channels, width, 2 if i > 0 and number == 0 else 1))
            channels = block.expansion * width
        stages.append(nn.Sequential(*blocks))
    return stages


class ResNet(nn.Layer):
    """ResNet without a classifier; takes any image size.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stem: "imagenet" (7 x 7 stride 2 and max-pool), "cifar" (3 x 3 stride 1, no max-pool) or "no_pool" (7 x 7
            stride 2, no max-pool).
        in_chans: image channels.
        zero_init_residual: start every block as the identity, its last norm's scale at 0 (arXiv:1706.02677, 5.1).
    Raises:
        BadInput: unknown depth or stem.
    Source: He et al. 2015, arXiv:1512.03385, table 1.
    """

    img_size = None
    data_formats, data_format = ("NCHW", "NHWC"), "NCHW"       # of the maps inside; see layers/data_format.py

    def __init__(self, *, depth: int = 50, stem: str = "imagenet", in_chans: int = 3,
                 zero_init_residual: bool = False):
        super().__init__()
        check_positive(in_chans=in_chans)
        if depth not in DEPTHS:
            raise BadInput(f"depth is {depth}, expected one of {', '.join(map(str, DEPTHS))}")
        if stem not in STEMS:
            raise BadInput(f"unknown stem {stem!r}{nearest(stem, STEMS)}")
        block, depths = DEPTHS[depth]
        kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.in_chans = in_chans
        self.conv1 = Conv2D(in_chans, 64, kernel, stride=stride, padding=kernel // 2, bias_attr=False)
        self.bn1 = BatchNorm2D(64, post_act="relu")
        self.pool = MaxPool2D(3, stride=2, padding=1) if stem == "imagenet" else None
        self.stages = nn.LayerList(_stages(block, depths))
        first = {"imagenet": 4, "no_pool": 2, "cifar": 1}[stem]
        self.feature_strides = tuple(first * 2 ** i for i in range(4))
        self.feature_channels = tuple(64 * 2 ** i * block.expansion for i in range(4))
        self.num_features = self.feature_channels[-1]
        if zero_init_residual:
            for part in self.sublayers():
                if isinstance(part, block):
                    part.last_norm.weight.set_value(paddle.zeros_like(part.last_norm.weight))

    def forward(self, images):
        """Mean over the positions of the last stage, [B, num_features]."""
        maps, data_format = self._maps(images)
        return ops.spatial_mean(maps[-1], data_format)

    def feature_maps(self, images) -> list:
        """Output of every stage: [B, C_i, H / stride_i, W / stride_i]."""
        maps, data_format = self._maps(images)
        return [to_nchw(x, data_format) for x in maps]

    def _maps(self, images) -> tuple:
        """``feature_maps`` as they are computed, and their layout."""
        check_images(images, self.in_chans)
        data_format = layout_of(self, images)
        x = self.bn1(self.conv1(from_nchw(images, data_format), data_format), data_format)
        if self.pool is not None:
            x = self.pool(x, data_format)
        maps = []
        for stage in self.stages:
            for block in stage.children():
                x = apply_block(block, x, data_format)
            maps.append(x)
        return maps, data_format
