"""S2-MLP v1 and v2 against their definition written position by position, and what the shift promises."""
import math

import numpy
import paddle
import pytest
from helpers.definitions import gelu, layer_norm, linear

from passl_mixer.backbones.s2_mlp_v1 import HEIGHT_FIRST, WIDTH_FIRST, S2Block, spatial_shift
from passl_mixer.backbones.s2_mlp_v2 import S2Mixer
from passl_mixer.layers.stages import ResidualBlock
from passl_mixer.ops.quarters import shift_map

# (row, column) that every quarter of the channels is read from, in the order of the paper's pseudo-code.
READ_FROM = {HEIGHT_FIRST: [(-1, 0), (1, 0), (0, -1), (0, 1)], WIDTH_FIRST: [(0, -1), (0, 1), (-1, 0), (1, 0)]}


def slow_shift(x, axes):
    """Every position reads its neighbour; where there is none it keeps its own value."""
    y = x.copy()
    for b, i, j, c in numpy.ndindex(x.shape):
        di, dj = READ_FROM[axes][c // (x.shape[3] // 4)]
        if 0 <= i + di < x.shape[1] and 0 <= j + dj < x.shape[2]:
            y[b, i, j, c] = x[b, i + di, j + dj, c]
    return y


def slow_mlp(block, x):
    return x + linear(block.mlp.fc2, gelu(linear(block.mlp.fc1, layer_norm(block.norm2, x))))


def slow_v1(block, x):
    hidden = gelu(linear(block.fc1, layer_norm(block.norm1, x)))
    return slow_mlp(block, x + linear(block.fc2, slow_shift(hidden, HEIGHT_FIRST)))


def slow_v2(block, x):
    width, mixer = x.shape[3], block.mixer
    wide = linear(mixer.expand, layer_norm(block.norm1, x))
    maps = [slow_shift(wide[..., :width], HEIGHT_FIRST),
            slow_shift(wide[..., width:2 * width], WIDTH_FIRST), wide[..., 2 * width:]]
    mixed = numpy.zeros_like(x)
    for b in range(x.shape[0]):
        total = sum(map_[b, i, j] for map_ in maps for i, j in numpy.ndindex(x.shape[1:3]))
        scores = linear(mixer.attention.fc2, gelu(linear(mixer.attention.fc1, total)))
        for c in range(width):
            weights = [math.exp(scores[k * width + c]) for k in range(3)]
            mixed[b, :, :, c] = sum(w * map_[b, :, :, c] for w, map_ in zip(weights, maps)) / sum(weights)
    return slow_mlp(block, x + linear(mixer.proj, mixed))


def s2v2_block(width, **options):
    return ResidualBlock(width, S2Mixer(width), **options)


@pytest.mark.parametrize(("make_block", "slow"), [(S2Block, slow_v1), (s2v2_block, slow_v2)])
def test_a_block_is_its_definition(make_block, slow):
    block = make_block(8, mlp_ratio=2, act="gelu", drop_path=0.0)
    rng = numpy.random.default_rng(0)
    for parameter in block.parameters():  # of order one, so that nothing drowns in the residual
        parameter.set_value(rng.normal(scale=0.4, size=parameter.shape).astype("float32"))
    x = rng.normal(size=(2, 4, 3, 8))
    got = block(paddle.to_tensor(x.astype("float32"))).numpy()
    expected = slow(block, x)
    assert numpy.abs(got - expected).max() <= 1e-5 * numpy.abs(expected).max()


@pytest.mark.parametrize("axes", [HEIGHT_FIRST, WIDTH_FIRST])
@pytest.mark.parametrize("size", [(4, 5), (1, 3), (2, 1), (1, 1)])
def test_shift_moves_quarters_and_does_not_touch_its_input(axes, size):
    x = numpy.random.default_rng(1).normal(size=(2, *size, 8)).astype("float32")
    tensor = paddle.to_tensor(x)
    numpy.testing.assert_array_equal(spatial_shift(tensor, axes).numpy(), slow_shift(x, axes))
    numpy.testing.assert_array_equal(tensor.numpy(), x)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("step", [1, -1])
def test_border_rows_keep_their_value_and_there_and_back_leaves_the_interior(axis, step):
    x = paddle.randn([2, 5, 6, 3])
    moved = shift_map(x, axis, step)
    border = 0 if step > 0 else -1
    numpy.testing.assert_array_equal(moved.numpy().take(border, axis), x.numpy().take(border, axis))
    back = shift_map(moved, axis, -step).numpy()
    interior = range(1, x.shape[axis] - 1)
    numpy.testing.assert_array_equal(back.take(interior, axis), x.numpy().take(interior, axis))


def test_shift_of_a_ramp():
    ramp = paddle.arange(5, dtype="float32").reshape([1, 5, 1, 1])
    assert shift_map(ramp, 1, 1).flatten().tolist() == [0, 0, 1, 2, 3]
    assert shift_map(ramp, 1, -1).flatten().tolist() == [1, 2, 3, 4, 4]
