"""AS-MLP: its shift against roll-and-zero, the norm over the whole image, sizes, drop path, initial weights."""
import math

import numpy
import paddle
import pytest

from passl_mixer import ops
from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.as_mlp import PatchMerging, axial_shift
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath, Linear
from passl_mixer.layers.group_norm import GroupNorm1
from passl_mixer.surgery.macs import count_parameters

SMALL = {"name": "ASMLP", "patch_size": 2, "embed_dim": 10, "depths": [1, 2], "shift_size": 3, "mlp_ratio": 2}


def small(**options):
    return build_backbone({**SMALL, **options})


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


def test_features_gradients_and_maps():
    paddle.seed(0)
    backbone = small()
    images = paddle.randn([2, 3, 16, 24])
    features = backbone(images)
    assert features.shape == [2, backbone.num_features] == [2, 20]
    (features * paddle.randn(features.shape)).sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    assert backbone.img_size is None
    assert (backbone.feature_strides, backbone.feature_channels) == ((2, 4), (10, 20))
    assert [m.shape for m in backbone.feature_maps(images)] == [[2, 10, 8, 12], [2, 20, 4, 6]]
    assert float((backbone(images)[1:] - backbone(images[1:])).abs().max()) < 1e-5


@pytest.mark.parametrize("size", [28, 32, 36])
def test_nano_takes_small_images(size):
    backbone = build_backbone("as_mlp_nano")
    assert backbone.feature_maps(paddle.zeros([1, 3, size, size]))[-1].shape == [1, 96, size // 4, size // 4]
    assert 300_000 <= count_parameters(backbone) <= 1_500_000


@pytest.mark.parametrize(("size", "words"), [
    ((30, 32), r"30 x 32 pixels.*multiples of its largest stride, 4: 28 x 32 or 32 x 32, say"),
    ((3, 8), "stride, 4: 4 x 8, say"),
    ((17, 9), "stride, 4: 16 x 8 or 20 x 12, say"),
])
def test_sizes_that_do_not_halve_are_refused(size, words):
    with pytest.raises(BadInput, match=words):
        small()(paddle.zeros([1, 3, *size]))


@pytest.mark.parametrize(("options", "words"), [
    ({"shift_size": 4}, "shift_size is 4.*expected odd"),
    ({"shift_size": 0}, "shift_size is 0"),
    ({"mlp_ratio": 0.01}, "at least one hidden unit"),
    ({"depths": []}, "depths is"),
    ({"depths": [2, 0]}, "depths is"),
    ({"embed_dim": 0}, "embed_dim is 0"),
    ({"embed_dim": "96"}, "expected an integer"),
    ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
    ({"img_size": 32}, "has no option 'img_size'"),
])
def test_options_that_do_not_fit(options, words):
    with pytest.raises(BadInput, match=words):
        small(**options)


def test_other_channel_counts():
    backbone = small(in_chans=1)
    assert backbone(paddle.randn([1, 1, 8, 8])).shape == [1, 20]
    with pytest.raises(BadInput, match=r"expected \[B, 1, H, W\]"):
        backbone(paddle.zeros([1, 3, 8, 8]))


def test_drop_path_rises_over_all_blocks_and_is_applied():
    paddle.seed(3)
    backbone = small(depths=[2, 3], drop_path_rate=0.4)
    rates = [layer.rate for layer in backbone.sublayers() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    images = paddle.randn([8, 3, 8, 8])
    assert float((backbone(images) - backbone(images)).abs().max()) > 1e-4
    backbone.eval()
    assert float((backbone(images) - backbone(images)).abs().max()) == 0


def test_initial_weights_are_the_default_of_torch_convolutions():
    paddle.seed(0)
    backbone = build_backbone("as_mlp_nano")
    maps = [layer for layer in backbone.sublayers() if isinstance(layer, Linear)]
    assert len(maps) == 6 * 6 + 1
    for layer in maps:
        bound = 1 / math.sqrt(layer.weight.shape[0])
        assert bound * 0.98 < float(layer.weight.abs().max()) <= bound
        assert float(layer.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        if layer.bias is not None:
            assert bound * 0.8 < float(layer.bias.abs().max()) <= bound
    assert backbone.downsamples[0].reduction.bias is None
    assert float(backbone.stem.weight.abs().max()) == pytest.approx(1 / math.sqrt(12), rel=0.02)
