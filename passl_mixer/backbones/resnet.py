"""ResNet (He et al. 2015, arXiv:1512.03385): the comparison backbone, from ``paddle.vision.models``.

Deviation: ``stem: cifar`` is the 3 x 3 first convolution without max-pool of the CIFAR experiments of SimCLR
(arXiv:2002.05709, appendix B.9); ``stem: no_pool`` is the ImageNet stem without its max-pool, four times the
work (PASSL's SimCLR). Weights are random; nothing is downloaded. Initialisation is Paddle's.
"""
import paddle
from paddle import nn
from paddle.vision import models

from passl_mixer.backbones.checks import check_images, check_positive
from passl_mixer.backbones.convolution import Conv2D
from passl_mixer.backbones.layout import images_in, map_out, mean_of
from passl_mixer.backbones.map_norms import BatchNorm2D
from passl_mixer.backbones.recompute import apply_block
from passl_mixer.errors import BadInput, nearest

BLOCKS = {18: "BasicBlock", 34: "BasicBlock", 50: "BottleneckBlock", 101: "BottleneckBlock",
          152: "BottleneckBlock"}
STEMS = ("imagenet", "cifar", "no_pool")


def use_own_layers(net) -> None:
    """Put this package's ``Conv2D`` and ``BatchNorm2D``, which use every core of a CPU, in the place of Paddle's."""
    for parent in net.sublayers(include_self=True):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv2D:
                own = Conv2D(layer._in_channels, layer._out_channels, layer._kernel_size, stride=layer._stride[0],
                             padding=layer._padding, groups=layer._groups, bias_attr=False)
                own.weight = layer.weight
                setattr(parent, name, own)
            elif type(layer) is nn.BatchNorm2D:
                setattr(parent, name, BatchNorm2D(layer._num_features))


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
    channels_last = False       # turned by layout.py: maps are [B, H, W, C] inside

    def __init__(self, *, depth: int = 50, stem: str = "imagenet", in_chans: int = 3,
                 zero_init_residual: bool = False):
        super().__init__()
        check_positive(in_chans=in_chans)
        if depth not in BLOCKS:
            raise BadInput(f"depth is {depth}, expected one of {', '.join(map(str, BLOCKS))}")
        if stem not in STEMS:
            raise BadInput(f"unknown stem {stem!r}{nearest(stem, STEMS)}")
        block = getattr(models.resnet, BLOCKS[depth])
        net = models.ResNet(block, depth, num_classes=0, with_pool=False)
        use_own_layers(net)
        kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.in_chans = in_chans
        self.conv1 = Conv2D(in_chans, 64, kernel, stride=stride, padding=kernel // 2, bias_attr=False)
        self.bn1 = BatchNorm2D(64, after="relu")
        self.pool = nn.MaxPool2D(3, stride=2, padding=1) if stem == "imagenet" else None
        self.stages = nn.LayerList([net.layer1, net.layer2, net.layer3, net.layer4])
        first = {"imagenet": 4, "no_pool": 2, "cifar": 1}[stem]
        self.feature_strides = tuple(first * 2 ** i for i in range(4))
        self.feature_channels = tuple(64 * 2 ** i * block.expansion for i in range(4))
        self.num_features = self.feature_channels[-1]
        if zero_init_residual:
            for part in net.sublayers():
                if isinstance(part, block):
                    last = part.bn2 if BLOCKS[depth] == "BasicBlock" else part.bn3
                    last.weight.set_value(paddle.zeros_like(last.weight))

    def forward(self, images):
        """Mean over the positions of the last stage, [B, num_features]."""
        return mean_of(self._maps(images)[-1], self.channels_last)

    def feature_maps(self, images) -> list:
        """Output of every stage: [B, C_i, H / stride_i, W / stride_i]."""
        return [map_out(x, self.channels_last) for x in self._maps(images)]

    def _maps(self, images) -> list:
        """``feature_maps`` as they are computed: [B, H, W, C] once turned."""
        check_images(images, self.in_chans)
        x = self.bn1(self.conv1(images_in(images, self.channels_last)))
        if self.pool is not None:
            x = self.pool(x)
        maps = []
        for stage in self.stages:
            for block in stage.children():
                x = apply_block(block, x)
            maps.append(x)
        return maps
