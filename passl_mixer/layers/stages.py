"""Families of stages: their loop over stages, stem sizes, the block of two residual branches, weighted branches.

Shapes: B images, H x W positions, C channels; the suffix of a tensor's name is its layout.
"""
from typing import Callable

import paddle
from paddle import nn

from passl_mixer import ops
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath, LayerNorm, Mlp, maps_nhwc
from passl_mixer.layers.checks import check_images, check_positive, check_same_length
from passl_mixer.layers.convolution import Conv2D
from passl_mixer.layers.recompute import apply_block

# stem_stride: (kernel, padding) of the stem convolution; 7 x 7 with padding 2 is published.
STEMS = {4: (7, 2), 2: (3, 1)}


def check_stages(*, in_chans, stem_stride, embed_dims, depths, mlp_ratios) -> None:
    """Check the options that both families have.

    Args:
        in_chans, stem_stride, embed_dims, depths, mlp_ratios: as given to the backbone.
    Raises:
        BadInput: they do not fit each other.
    """
    check_same_length(embed_dims=embed_dims, depths=depths, mlp_ratios=mlp_ratios)
    check_positive(in_chans=in_chans, embed_dims=embed_dims, depths=depths, mlp_ratios=mlp_ratios)
    if stem_stride not in STEMS:
        raise BadInput(f"stem_stride is {stem_stride}, expected 4 (published) or 2 (for small images)")
    if min(embed_dims) < 4:
        raise BadInput(f"embed_dims is {list(embed_dims)}, expected widths of at least 4: the scores of the "
                       "branches have a hidden layer of a quarter of the width")
    if any(width * ratio < 1 for width, ratio in zip(embed_dims, mlp_ratios)):
        raise BadInput(f"mlp_ratios {list(mlp_ratios)} leave no hidden unit at embed_dims {list(embed_dims)}; "
                       "raise one of them")


def stage_outputs(x_bhwc, stages, downsamples) -> list:
    """Output of every stage, [B, H_i, W_i, C_i], before down-sampling.

    Args:
        x_bhwc: what the first stage takes.
        stages: lists of blocks, each from [B, H_i, W_i, C_i] to the same.
        downsamples: between stages, from [B, H_i, W_i, C_i] to [B, H_i+1, W_i+1, C_i+1].
    """
    outputs = []
    for i, blocks in enumerate(stages):
        if i > 0:
            x_bhwc = downsamples[i - 1](x_bhwc)
        for block in blocks:
            x_bhwc = apply_block(block, x_bhwc)
        outputs.append(x_bhwc)
    return outputs


def in_nhwc(layer: nn.Layer) -> Callable:
    """A layer on maps [B, C, H, W] as a function on [B, H, W, C]."""
    def on_nhwc(x_bhwc):
        if isinstance(layer, Conv2D):
            return layer(x_bhwc, data_format="NHWC")
        return ops.permute(layer(ops.permute(x_bhwc, [0, 3, 1, 2])), [0, 2, 3, 1])
    return on_nhwc


def conv_stage_outputs(backbone, images) -> list:
    """``stage_outputs`` where convolutions make the stem and the down-samplings.

    Args:
        backbone: has ``in_chans``, ``stem``, ``stages`` and ``downsamples``.
        images: [B, in_chans, H, W].
    Raises:
        BadInput: if ``images`` has another shape.
    """
    check_images(images, backbone.in_chans)
    x_bhwc = maps_nhwc(backbone.stem, images)
    return stage_outputs(x_bhwc, backbone.stages, [in_nhwc(layer) for layer in backbone.downsamples])


class ResidualBlock(nn.Layer):
    """``x += mixer(norm(x)); x += mlp(norm(x))`` on [B, H, W, C].

    Args:
        width: channels C.
        mixer: a Layer from [B, H, W, C] to the same shape.
        mlp_ratio: hidden width of the MLP as a multiple of ``width``.
        drop_path: rate of stochastic depth of both branches, in [0, 1).
        act: activation of the MLP.
        norm: makes a norm over the last axis for a number of channels.
    """

    def __init__(self, width: int, mixer: nn.Layer, *, mlp_ratio: float, drop_path: float, act: str = "gelu",
                 norm: Callable[[int], nn.Layer] = LayerNorm):
        super().__init__()
        self.norm1 = norm(width)
        self.mixer = mixer
        self.norm2 = norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), act=act)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_bhwc):
        """Maps [B, H, W, C] to the same shape."""
        x_bhwc = x_bhwc + self.drop_path(self.mixer(self.norm1(x_bhwc)))
        return x_bhwc + self.drop_path(self.mlp(self.norm2(x_bhwc)))


def four_neighbours(x_bhwc):
    """2 x 2 neighbours of [B, H, W, C] side by side, [B, H / 2, W / 2, 4 C]; of the four, rows are the faster index."""
    height, width, channels = x_bhwc.shape[1:]
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):     # unknown in this program
        return paddle.concat([x_bhwc[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], axis=-1)
    pairs = x_bhwc.reshape([-1, height // 2, 2, width // 2, 2, channels])
    return ops.permute(pairs, [0, 1, 3, 4, 2, 5]).reshape([-1, height // 2, width // 2, 4 * channels])


def branch_shares(mean_bc, reduce, score, count: int, dtype):
    """The shares of ``weigh_branches``, a list of [B, C] of type ``dtype``.

    Args:
        mean_bc: mean over positions of the branches' sum, [B, C].
        reduce, score: as of ``weigh_branches``.
        count: number of branches.
        dtype: of the branches.
    """
    scores = score(ops.activate(reduce(mean_bc), "gelu"))
    shares = ops.softmax(scores.reshape([-1, mean_bc.shape[-1], count]), -1).astype(dtype)
    # The branch in front: to part the last axis takes Paddle's CPU programs six times as long (0.54 ms, 8 x 512 x 3).
    return shares.transpose([2, 0, 1]).unbind(axis=0)


def weigh_branches(branches, reduce, score):
    """Sum of branches, weighted per image and channel by a softmax over the branches.

    Args:
        branches: N tensors [B, H, W, C].
        reduce: linear map from C to a hidden width, of the mean over positions of the branches' sum.
        score: linear map from the hidden width, after GELU, to C * N scores; the branch is the fastest index.
    Returns:
        [B, H, W, C].
    Source: the ``reweight`` of the official Hire-MLP, Wave-MLP and CycleMLP; ResNeSt's split attention
        (Zhang et al. 2020, arXiv:2004.08955).
    """
    shares_bc = branch_shares(ops.branch_mean(branches), reduce, score, len(branches), branches[0].dtype)
    return ops.weigh_branches(branches, shares_bc)
