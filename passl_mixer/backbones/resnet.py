"""ResNet (He et al. 2015, arXiv:1512.03385): the comparison backbone, from ``paddle.vision.models``.

Deviation: ``stem: cifar`` is the 3 x 3 first convolution without max-pool of the CIFAR experiments of SimCLR
(arXiv:2002.05709, appendix B.9). Weights are random; nothing is downloaded. Initialisation is Paddle's.
"""
from paddle import nn
from paddle.vision import models

from passl_mixer.backbones.layers import check_images, check_positive
from passl_mixer.errors import BadInput, nearest

BLOCKS = {18: "BasicBlock", 34: "BasicBlock", 50: "BottleneckBlock", 101: "BottleneckBlock",
          152: "BottleneckBlock"}
STEMS = ("imagenet", "cifar")


class ResNet(nn.Layer):
    """ResNet without a classifier; takes any image size.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stem: "imagenet" (7 x 7 stride 2 and max-pool) or "cifar" (3 x 3 stride 1, no max-pool).
        in_chans: image channels.
    Raises:
        BadInput: unknown depth or stem.
    Source: He et al. 2015, arXiv:1512.03385, table 1.
    """

    img_size = None

    def __init__(self, *, depth: int = 50, stem: str = "imagenet", in_chans: int = 3):
        super().__init__()
        check_positive(in_chans=in_chans)
        if depth not in BLOCKS:
            raise BadInput(f"depth is {depth}, expected one of {', '.join(map(str, BLOCKS))}")
        if stem not in STEMS:
            raise BadInput(f"unknown stem {stem!r}{nearest(stem, STEMS)}")
        block = getattr(models.resnet, BLOCKS[depth])
        net = models.ResNet(block, depth, num_classes=0, with_pool=False)
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.in_chans = in_chans
        self.conv1 = nn.Conv2D(in_chans, 64, kernel, stride=stride, padding=kernel // 2, bias_attr=False)
        self.bn1 = net.bn1
        self.pool = nn.MaxPool2D(3, stride=2, padding=1) if stem == "imagenet" else None
        self.stages = nn.LayerList([net.layer1, net.layer2, net.layer3, net.layer4])
        first = 4 if stem == "imagenet" else 1
        self.feature_strides = tuple(first * 2 ** i for i in range(4))
        self.feature_channels = tuple(64 * 2 ** i * block.expansion for i in range(4))
        self.num_features = self.feature_channels[-1]

    def forward(self, images):
        """Mean over the positions of the last stage, [B, num_features]."""
        return self.feature_maps(images)[-1].mean(axis=[2, 3])

    def feature_maps(self, images) -> list:
        """Output of every stage: [B, C_i, H / stride_i, W / stride_i]."""
        check_images(images, self.in_chans)
        x_bchw = nn.functional.relu(self.bn1(self.conv1(images)))
        if self.pool is not None:
            x_bchw = self.pool(x_bchw)
        maps = []
        for stage in self.stages:
            x_bchw = stage(x_bchw)
            maps.append(x_bchw)
        return maps
