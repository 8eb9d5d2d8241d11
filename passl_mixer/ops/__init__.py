"""Operators: ``from passl_mixer import ops``, then ``ops.linear(x, weight, bias, act="gelu")``.

``TABLE`` is the table: every operator by name, with its reference of Paddle's own operators and its quicker
implementations. ``table.py`` says which of them a call takes; ``native/`` holds the native kernels, ``gradients.py``
how an operator of our own takes part in Paddle's automatic differentiation.
"""
from passl_mixer.ops.activations import ACTIVATE, SCALED_SOFTMAX, SOFTMAX, activate, scaled_softmax, softmax
from passl_mixer.ops.axes import (
    FLATTEN,
    GATHER_ROWS,
    HALVES,
    PAD_AXIS,
    PERMUTE,
    flatten,
    gather_rows,
    halves,
    pad_axis,
    permute,
)
from passl_mixer.ops.batch_norms import BATCH_NORM, CHANNEL_SUMS, around_channels, batch_norm, channel_sums
from passl_mixer.ops.branches import BRANCH_MEAN, WEIGH_BRANCHES, branch_mean, weigh_branches
from passl_mixer.ops.convolution import CONV2D, conv2d
from passl_mixer.ops.elementwise import (
    ADD_SCALED,
    AFFINE,
    MULTIPLY,
    UNFOLD_WAVE,
    add_scaled,
    affine,
    multiply,
    unfold_wave,
)
from passl_mixer.ops.mlps import MATMUL, MLP, TOKEN_MLP, matmul, mlp, token_mlp
from passl_mixer.ops.norms import GROUP_NORM1, LAYER_NORM, group_norm1, group_norm1_of_rows, layer_norm
from passl_mixer.ops.pooling import MAX_POOL2D, SPATIAL_MEAN, max_pool2d, spatial_mean
from passl_mixer.ops.products import LINEAR, TOKEN_LINEAR, linear, token_linear
from passl_mixer.ops.quarters import SHIFT_QUARTERS, shift_quarters
from passl_mixer.ops.regions import FROM_REGIONS, TO_REGIONS, from_regions, to_regions
from passl_mixer.ops.shifts import CYCLE_SHIFT, MOVE_GROUPS, ROLL, TAKE, cycle_shift, move_groups, roll, take
from passl_mixer.ops.table import computes_in_bf16, constant, prefers_nhwc, readable_at_once
from passl_mixer.ops.waves import WAVE_MIX, wave_mix
from passl_mixer.ops.windows import JOIN_WINDOWS, SPLIT_WINDOWS, join_windows, split_windows

TABLE = {operator.name: operator for operator in (
    LINEAR, TOKEN_LINEAR, MLP, TOKEN_MLP, MATMUL, ACTIVATE, SOFTMAX, SCALED_SOFTMAX, LAYER_NORM, GROUP_NORM1,
    BATCH_NORM, CHANNEL_SUMS, CONV2D, MAX_POOL2D, SPATIAL_MEAN, PERMUTE, FLATTEN, HALVES, PAD_AXIS, TAKE, ROLL,
    CYCLE_SHIFT, MOVE_GROUPS, SHIFT_QUARTERS, BRANCH_MEAN, WEIGH_BRANCHES, AFFINE, ADD_SCALED, MULTIPLY, UNFOLD_WAVE,
    WAVE_MIX, SPLIT_WINDOWS, JOIN_WINDOWS, TO_REGIONS, FROM_REGIONS, GATHER_ROWS)}

__all__ = ["TABLE", "activate", "add_scaled", "affine", "around_channels", "batch_norm", "branch_mean",
           "channel_sums", "computes_in_bf16", "constant", "conv2d", "cycle_shift", "flatten", "from_regions",
           "gather_rows",
           "group_norm1", "group_norm1_of_rows", "halves", "join_windows", "layer_norm", "linear", "matmul",
           "max_pool2d", "mlp", "move_groups", "multiply", "pad_axis", "permute", "prefers_nhwc", "readable_at_once",
           "roll", "scaled_softmax", "shift_quarters", "softmax", "spatial_mean", "split_windows", "take",
           "to_regions", "token_linear", "token_mlp", "unfold_wave", "wave_mix", "weigh_branches"]
