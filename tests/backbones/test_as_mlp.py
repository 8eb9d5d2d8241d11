"""AS-MLP: its shift against roll-and-zero, and how patches merge."""
import math

import numpy
import paddle
import pytest

from passl_mixer import ops
from passl_mixer.backbones.as_mlp import PatchMerging, axial_shift
from passl_mixer.layers.group_norm import GroupNorm1


def roll_and_zero(x, axis, shift_size):
    """The shift by its definition: split as torch.chunk does, roll every group, zero what came round."""
    size = math.ceil(x.shape[-1] / shift_size)
    groups = [x[..., start:start + size] for start in range(0, x.shape[-1], size)]
    rolled = []
    for group, offset in zip(groups, range(-(shift_size // 2), shift_size // 2 + 1)):
        y, length = numpy.roll(group, offset, axis), x.shape[axis]
        came_round = range(min(offset, length)) if offset > 0 else range(max(length + offset, 0), length)
        for position in came_round:
            y[(slice(None),) * axis + (position,)] = 0
        rolled.append(y)
    return numpy.concatenate(rolled, -1)


# Widths: even groups; a smaller last group; a last group (7 in fives) or two (6 in fives) missing altogether.
@pytest.mark.parametrize(("width", "shift_size"), [(10, 5), (13, 5), (7, 5), (6, 5), (2, 3), (4, 1)])
@pytest.mark.parametrize("axis", [1, 2])
def test_the_shift_is_roll_and_zero(axis, width, shift_size):
    x = numpy.random.default_rng(0).normal(size=(2, 6, 5, width)).astype("float32")
    wanted, reach = roll_and_zero(x, axis, shift_size), shift_size // 2
    numpy.testing.assert_array_equal(axial_shift(paddle.to_tensor(x), axis, shift_size).numpy(), wanted)
    by_slices = ops.TABLE["move_groups"].reference(paddle.to_tensor(x), axis, range(-reach, reach + 1))
    numpy.testing.assert_array_equal(by_slices.numpy(), wanted)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_map_smaller_than_the_shift(side):
    x = numpy.random.default_rng(1).normal(size=(1, side, side, 7)).astype("float32")
    for axis in (1, 2):
        numpy.testing.assert_array_equal(axial_shift(paddle.to_tensor(x), axis, 7).numpy(), roll_and_zero(x, axis, 7))


def test_a_shifted_border_is_zero():
    y = axial_shift(paddle.ones([1, 6, 6, 5]), 2, 5).numpy()[0, 0]
    assert y.T.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1] * 6, [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize("axis", [1, 2])
def test_the_gradient_of_the_shift_is_the_adjoint(axis):
    paddle.seed(0)
    x, weights = paddle.randn([2, 4, 5, 13]), paddle.randn([2, 4, 5, 13])
    x.stop_gradient = False
    (axial_shift(x, axis, 5) * weights).sum().backward()
    # <shift(x), w> = <x, gradient> for every x, as the shift is linear; here for every unit vector of one image.
    unit = paddle.eye(4 * 5 * 13).reshape([-1, 4, 5, 13])
    expected = (axial_shift(unit, axis, 5) * weights[:1]).sum(axis=[1, 2, 3]).reshape([4, 5, 13])
    numpy.testing.assert_allclose(x.grad[0].numpy(), expected.numpy(), atol=1e-6)


def test_the_norm_is_over_the_whole_image():
    norm = GroupNorm1(6)
    norm.weight.set_value(paddle.arange(6, dtype="float32"))
    norm.bias.set_value(-paddle.arange(6, dtype="float32"))
    x = numpy.random.default_rng(2).normal(3, 2, size=(2, 4, 5, 6)).astype("float32")
    mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
    expected = (x - mean) / numpy.sqrt(variance + 1e-5) * numpy.arange(6) - numpy.arange(6)
    numpy.testing.assert_allclose(norm(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_merging_puts_the_neighbours_side_by_side():
    merging = PatchMerging(3)
    x = numpy.random.default_rng(3).normal(size=(1, 4, 6, 3)).astype("float32")
    corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    four = numpy.concatenate(corners, -1)
    expected = merging.reduction(merging.norm(paddle.to_tensor(four)))
    got = merging(paddle.to_tensor(x))
    assert got.shape == [1, 2, 3, 6]
    numpy.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-6)
