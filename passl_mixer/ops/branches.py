"""Three branches weighted per image and channel: ViP, CycleMLP, Hire-MLP, Wave-MLP and S2-MLPv2.

A product of [B, H, W, C] with [B, 1, 1, C] takes a CPU program of Paddle's twenty times as long as one of two whole
maps (measured, 8 x 56 x 56 x 64: 11.4 ms and 0.5 ms, the repetition included), and a mean over positions twelve times
as long as a product with 1 / (H * W).
"""
import paddle

from passl_mixer.ops.gradients import apply
from passl_mixer.ops.memory import empty
from passl_mixer.ops.native import call, dense
from passl_mixer.ops.pooling import map_mean
from passl_mixer.ops.table import Implementation, Operator


def branch_mean(branches):
    """Mean over the positions of the sum of branches.

    Args:
        branches: list of maps [B, H, W, C].
    Returns:
        [B, C].
    """
    return BRANCH_MEAN(branches)


def _branch_mean(branches):
    return paddle.add_n(branches).mean(axis=[1, 2])


def _branch_mean_in_program(branches):
    return map_mean(paddle.add_n(branches))


class _BranchMean:
    @staticmethod
    def forward(ctx, *branches):
        ctx.shape = batch, height, width, channels = branches[0].shape
        mean_bc = empty([batch, channels])
        call("branch_mean", *map(dense, branches), mean_bc, batch, height * width, channels)
        return mean_bc

    @staticmethod
    def gradients(ctx, dy):
        batch, height, width, channels = ctx.shape
        dy = dense(dy)

        def spread():
            dx = empty(ctx.shape)
            call("branch_mean_gradient", dy, dx, batch, height * width, channels)
            return dx

        # one tensor each: Paddle adds into the gradients it is given
        return spread, spread, spread

    @staticmethod
    def plain_gradients(ctx, dy):
        _, height, width, _ = ctx.shape

        def spread():
            return paddle.tile((dy / (height * width)).unsqueeze([1, 2]), [1, height, width, 1])

        return spread, spread, spread


def _three_maps(branches) -> bool:
    first = branches[0]
    return (len(branches) == 3 and first.ndim == 4 and 0 not in first.shape
            and all(branch.shape == first.shape for branch in branches[1:]))


BRANCH_MEAN = Operator("branch_mean", 1, _branch_mean,
                       native=[Implementation(_three_maps, lambda branches: apply(_BranchMean, branches))],
                       program=Implementation(lambda branches: _known_sides(branches[0]), _branch_mean_in_program))


def _known_sides(x_bhwc) -> bool:
    """Whether height and width are numbers in a program that is being traced."""
    return all(isinstance(side, int) and side > 0 for side in x_bhwc.shape[1:3])


def weigh_branches(branches, shares):
    """Sum of branches, each multiplied by its share.

    Args:
        branches: list of maps [B, H, W, C].
        shares: for each of them [B, C].
    Returns:
        [B, H, W, C].
    """
    return WEIGH_BRANCHES(branches, shares)


def _weigh_branches(branches, shares):
    return paddle.add_n([branch * share.unsqueeze([1, 2]) for branch, share in zip(branches, shares)])


def _weigh_branches_in_program(branches, shares):
    return paddle.add_n([_scaled(branch, share) for branch, share in zip(branches, shares)])


def _scaled(x_bhwc, share_bc):
    _, height, width, _ = x_bhwc.shape
    return x_bhwc * paddle.tile(share_bc.unsqueeze([1, 2]), [1, height, width, 1])


class _WeighBranches:
    @staticmethod
    def forward(ctx, *branches_and_shares):
        ctx.tensors = branches_and_shares
        batch, height, width, channels = ctx.tensors[0].shape
        y_bhwc = empty(ctx.tensors[0].shape)
        call("weigh_branches", *map(dense, ctx.tensors), y_bhwc, batch, height * width, channels)
        return y_bhwc

    @staticmethod
    def gradients(ctx, dy):
        gradients = [empty(t.shape) for t in ctx.tensors]
        batch, height, width, channels = dy.shape
        call("weigh_branches_gradient", *map(dense, ctx.tensors), dense(dy), *gradients, batch, height * width,
             channels)
        return gradients

    @staticmethod
    def plain_gradients(ctx, dy):
        branches, shares = ctx.tensors[:3], ctx.tensors[3:]
        return (*(lambda share=share: dy * share.unsqueeze([1, 2]) for share in shares),
                *(lambda branch=branch: (dy * branch).sum([1, 2]) for branch in branches))


def _three_maps_and_shares(branches, shares) -> bool:
    return _three_maps(branches) and len(shares) == 3 and all(
        share.shape == [branches[0].shape[0], branches[0].shape[3]] for share in shares)


WEIGH_BRANCHES = Operator(
    "weigh_branches", 2, _weigh_branches,
    native=[Implementation(_three_maps_and_shares,
                           lambda branches, shares: apply(_WeighBranches, [*branches, *shares]))],
    program=Implementation(lambda branches, shares: _known_sides(branches[0]), _weigh_branches_in_program))
