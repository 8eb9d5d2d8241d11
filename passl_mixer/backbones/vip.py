"""ViP: Vision Permutator, A Permutable MLP-Like Architecture (Hou et al. 2021, arXiv:2106.12368).

Official code: https://github.com/Andrew-Qibin/VisionPermutator (models/vip.py), of which this is the Weighted
Permute-MLP. Deviations: ``segment_dims`` follow from the image size when left out; a grid that a transition cannot
halve, and a transition after the last stage, are refused (there the convolution drops a row, the flag is ignored).
Initialisation is the official one: truncated normal 0.02 and zero bias for linear maps, PyTorch's default for
convolutions.

A stage of N x N positions splits its C channels into N groups of C / N, which change places with the rows or with the
columns. So the images are square, of the one size the network was built for; its weights fit no other size's grid.

Shapes: B images, N x N positions (N: segment_dim of the stage), C channels; a tensor's suffix is its layout.
"""
from typing import List, Optional, Sequence, Union

from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import LayerNorm, Linear, linear_rates, maps_nhwc
from passl_mixer.layers.checks import check_images, check_positive, check_same_length, image_pair
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.layers.stages import ResidualBlock, in_nhwc, stage_outputs, weigh_branches

# Axes of [B, row, column, group, channel of the group] after the exchange of rows (1) or columns (2) with groups.
EXCHANGES = {1: [0, 3, 2, 1, 4], 2: [0, 1, 3, 2, 4]}


def exchange(x_bhwc, axis: int, segment_dim: int):
    """Let positions along one axis and groups of channels change places; its own inverse.

    Args:
        x_bhwc: [B, N, N, C].
        axis: 1 exchanges the rows with the groups, 2 the columns.
        segment_dim: N, the number of groups; divides C.
    Returns:
        [B, N, N, C]. For axis 1 and S = C / N: entry (b, i, j, k * S + s) was (b, k, j, i * S + s), so that a linear
        map over the last axis mixes the rows; for axis 2 it was (b, i, k, j * S + s).
    Source: official code, models/vip.py, WeightedPermuteMLP.forward.
    """
    n, width = segment_dim, x_bhwc.shape[-1]
    split = x_bhwc.reshape([-1, n, n, n, width // n])
    return ops.permute(split, EXCHANGES[axis]).reshape([-1, n, n, width])


class PermuteMixer(nn.Layer):
    """Weighted Permute-MLP: height, width and channel branches, weighted per channel by a softmax; on [B, N, N, C]."""

    def __init__(self, width: int, segment_dim: int):
        super().__init__()
        self.width, self.segment_dim = width, segment_dim
        self.along_height = Linear(width, width, bias=False)
        self.along_width = Linear(width, width, bias=False)
        self.channel = Linear(width, width, bias=False)
        self.reweight1 = Linear(width, width // 4)
        self.reweight2 = Linear(width // 4, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x_bhwc):
        """Maps [B, N, N, C] to the same shape."""
        h = exchange(self.along_height(exchange(x_bhwc, 1, self.segment_dim)), 1, self.segment_dim)
        w = exchange(self.along_width(exchange(x_bhwc, 2, self.segment_dim)), 2, self.segment_dim)
        c = self.channel(x_bhwc)
        return self.proj(weigh_branches([h, w, c], self.reweight1, self.reweight2))


def segments(side: int, patch_size: int, embed_dims: Sequence[int], transitions: Sequence[bool]) -> Optional[List[int]]:
    """Positions per row in every stage; None if the network cannot take such images.

    Args:
        side: height and width of the images in pixels.
        patch_size, embed_dims, transitions: options of ``ViP``.
    """
    step = patch_size * 2 ** sum(transitions)
    if side < step or side % step:
        return None
    counts, n = [], side // patch_size
    for width, halved in zip(embed_dims, transitions):
        if width % n:
            return None
        counts.append(n)
        n = n // 2 if halved else n
    return counts


def fitting_segments(img_size, patch_size: int, embed_dims: Sequence[int], transitions: Sequence[bool]) -> List[int]:
    """``segments`` of an image size.

    Args:
        img_size: (height, width) in pixels.
        patch_size, embed_dims, transitions: options of ``ViP``.
    Raises:
        BadInput: a size that does not fit, with the nearest ones that do.
    """
    counts = segments(img_size[0], patch_size, embed_dims, transitions)
    if img_size[0] == img_size[1] and counts:
        return counts
    # A stage has no more positions in a row than channels, which bounds the sizes.
    fits = [side for side in range(patch_size, patch_size * embed_dims[0] + 1, patch_size)
            if segments(side, patch_size, embed_dims, transitions)]
    near = sorted(sorted(fits, key=lambda side: abs(side - img_size[0]))[:4])
    words = f"sizes near it that fit: {', '.join(map(str, near))}" if near else "no size fits; change embed_dims"
    raise BadInput(f"img_size {img_size[0]} x {img_size[1]} does not fit ViP with patch_size {patch_size} and "
                   f"embed_dims {list(embed_dims)}: it needs square images whose patches in a row can be halved at "
                   f"every transition and divide the width of each stage; {words}")


class ViP(nn.Layer):
    """Vision Permutator without a classifier; takes square images of the one size it was built for.

    Args:
        img_size: height and width in pixels, equal. ``patch_size`` fits a whole number of times, N; N halves without
            remainder at every transition; and the N of every stage divides its width.
        in_chans: image channels.
        patch_size: side of a patch in pixels.
        embed_dims: width of each stage, 4 at least.
        depths: blocks of each stage.
        transitions: whether height and width are halved after each stage; the last one is false.
        segment_dims: positions per row of each stage; follow from the options above when left out (null), else are
            checked against them.
        mlp_ratios: hidden width of the channel MLPs of each stage, as a multiple of its width.
        drop_path_rate: stochastic-depth rate of the last block, rising linearly from 0 over all blocks, in [0, 1);
            the authors train vip_s7 with 0.1.
    Raises:
        BadInput: the options do not fit each other; lists of different lengths; an image size that does not fit,
            with the nearest ones that do.
    Source: Hou et al. 2021, arXiv:2106.12368, section 3; official code, models/vip.py.
    """

    def __init__(self, *, img_size: Union[int, Sequence[int]] = 224, in_chans: int = 3, patch_size: int = 7,
                 embed_dims: Sequence[int] = (192, 384, 384, 384), depths: Sequence[int] = (4, 3, 8, 3),
                 transitions: Sequence[bool] = (True, False, False, False),
                 segment_dims: Optional[Sequence[int]] = None, mlp_ratios: Sequence[float] = (3, 3, 3, 3),
                 drop_path_rate: float = 0.0):
        super().__init__()
        given = {} if segment_dims is None else {"segment_dims": segment_dims}
        check_same_length(embed_dims=embed_dims, depths=depths, transitions=transitions, mlp_ratios=mlp_ratios, **given)
        check_positive(in_chans=in_chans, patch_size=patch_size, embed_dims=embed_dims, depths=depths,
                       mlp_ratios=mlp_ratios, **given)
        if min(embed_dims) < 4 or transitions[-1]:
            raise BadInput(f"embed_dims is {list(embed_dims)}, transitions {list(transitions)}; expected every width "
                           "at least 4, and false for the last stage, which nothing follows")
        self.img_size = image_pair(img_size)
        self.segment_dims = tuple(fitting_segments(self.img_size, patch_size, embed_dims, transitions))
        if given and tuple(segment_dims) != self.segment_dims:
            raise BadInput(f"segment_dims is {list(segment_dims)}, but images of {self.img_size[0]} pixels have "
                           f"{list(self.segment_dims)} patches in a row; leave segment_dims out to follow img_size")
        self.in_chans, self.num_features = in_chans, embed_dims[-1]
        self.stem = torch_conv(in_chans, embed_dims[0], patch_size, stride=patch_size)
        rates = iter(linear_rates(drop_path_rate, sum(depths)))
        self.stages = nn.LayerList([
            nn.LayerList([ResidualBlock(width, PermuteMixer(width, n), mlp_ratio=ratio, drop_path=next(rates))
                          for _ in range(depth)])
            for width, n, depth, ratio in zip(embed_dims, self.segment_dims, depths, mlp_ratios)])
        # Between stages of the same width and resolution there is nothing.
        self.downsamples = nn.LayerList([
            torch_conv(width, after, 1 + halved, stride=1 + halved) if halved or width != after else nn.Identity()
            for width, after, halved in zip(embed_dims[:-1], embed_dims[1:], transitions)])
        self.norm = LayerNorm(self.num_features)
        # One feature map per resolution: the stages before a transition, and the last.
        self._map_stages = [i for i, halved in enumerate(transitions) if halved] + [len(depths) - 1]
        self.feature_channels = tuple(embed_dims[i] for i in self._map_stages)
        self.feature_strides = tuple(self.img_size[0] // self.segment_dims[i] for i in self._map_stages)

    def _stage_outputs(self, images) -> list:
        check_images(images, self.in_chans, self.img_size)
        downsamples = [layer if isinstance(layer, nn.Identity) else in_nhwc(layer) for layer in self.downsamples]
        return stage_outputs(maps_nhwc(self.stem, images), self.stages, downsamples)

    def forward(self, images):
        """Mean of the normalised positions of the last stage, [B, embed_dims[-1]]."""
        return self.norm(self._stage_outputs(images)[-1]).mean(axis=[1, 2])

    def feature_maps(self, images) -> list:
        """One map per resolution, not normalised, before the transition: [B, C_i, H / stride, W / stride]."""
        outputs = self._stage_outputs(images)
        return [ops.permute(outputs[i], [0, 3, 1, 2]) for i in self._map_stages]
