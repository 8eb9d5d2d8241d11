"""Hire-MLP: its mixer against the definition with loops, regions and shifts."""
import numpy
import paddle
import pytest
from helpers.backbones import size_of, small
from helpers.definitions import batch_norm, linear
from helpers.marks import slow_but
from helpers.three_branches import joined, layer_sum, map_size, randomised

from passl_mixer.backbones.hire_mlp import HireMixer, RegionMlp
from passl_mixer.ops import from_regions, to_regions


def region_mlp_along_height(layer, x, size, shift):
    """Definition for one image [H, W, C]: turn rows down, lay regions, go on with the first rows, mix, turn back."""
    height, width, chans = x.shape
    turned = numpy.stack([x[(i - shift) % height] for i in range(height)])
    mixed = numpy.zeros_like(turned)
    for start in range(0, height, size):
        for column in range(width):
            region = numpy.concatenate([turned[(start + p) % height, column] for p in range(size)])
            hidden = region @ layer.fc1.weight.numpy()
            out = linear(layer.fc2, numpy.maximum(batch_norm(layer.norm, hidden), 0))
            for p in range(min(size, height - start)):
                mixed[start + p, column] = out[p * chans:(p + 1) * chans]
    return numpy.stack([mixed[(i + shift) % height] for i in range(height)])


@pytest.mark.parametrize(("height", "width", "size", "shift"), [(6, 4, 2, 1), (7, 5, 3, 2), (2, 4, 4, 2), (1, 3, 4, 3)])
def test_mixer_is_the_definition(height, width, size, shift):
    mixer = randomised(HireMixer(8, size=size, shift=shift))
    x = numpy.random.default_rng(1).normal(size=(height, width, 8)).astype("float32")
    h = region_mlp_along_height(mixer.along_height, x, size, shift)
    w = region_mlp_along_height(mixer.along_width, x.transpose(1, 0, 2), size, shift).transpose(1, 0, 2)
    expected = joined(mixer, (h, w, linear(mixer.channel, x)))
    got = mixer(paddle.to_tensor(x[None])).numpy()[0]
    numpy.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * numpy.abs(expected).max())


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 16])
def test_regions_are_undone_by_their_inverse(axis, size):
    x = paddle.randn([2, 5, 6, 3])
    regions = to_regions(x, size, axis)
    shape = [2, 5, 6, 3 * size]
    shape[axis] = -(-shape[axis] // size)
    assert regions.shape == shape
    assert (from_regions(regions, size, axis, x.shape[axis]).numpy() == x.numpy()).all()
    tail = paddle.moveaxis(regions, axis, 1)[:, -1].numpy()[..., -3:]
    expected = paddle.moveaxis(x, axis, 1).numpy()[:, (shape[axis] * size - 1) % x.shape[axis]]
    assert (tail == expected).all()  # goes on with the first positions


@pytest.mark.parametrize("axis", [1, 2])
def test_the_cross_region_shift_is_undone_by_its_inverse(axis):
    shifted, plain = RegionMlp(4, size=3, shift=2, axis=axis), RegionMlp(4, size=3, shift=0, axis=axis)
    plain.set_state_dict(shifted.state_dict())
    shifted.eval()
    plain.eval()
    x = paddle.randn([2, 7, 7, 4])
    there_and_back = paddle.roll(plain(paddle.roll(x, 2, axis=axis)), -2, axis=axis)
    numpy.testing.assert_array_equal(shifted(x).numpy(), there_and_back.numpy())
    for layer in (shifted, plain):  # with a linear map that changes nothing, positions stay where they were
        layer.fc1, layer.norm, layer.fc2 = paddle.nn.Identity(), paddle.nn.ReLU(), paddle.nn.Identity()
        numpy.testing.assert_array_equal(layer(x).numpy(), numpy.maximum(x.numpy(), 0))


def test_only_the_shift_lets_regions_talk():
    paddle.seed(0)
    for shift, reached in ((0, {4, 5, 6, 7}), (2, {2, 3, 4, 5})):
        layer = RegionMlp(8, size=4, shift=shift, axis=1)
        layer.eval()
        x = paddle.randn([1, 12, 1, 8])
        x.stop_gradient = False
        (layer(x)[:, 4] * paddle.randn([1, 1, 8])).sum().backward()
        assert set(numpy.flatnonzero(numpy.abs(x.grad.numpy()).sum((0, 2, 3)))) == reached


def test_shifts_repeat_over_the_blocks_of_a_stage():
    def shifts(**options):
        return [[block.mixer.along_width.shift for block in stage] for stage in small("HireMLP", **options).stages]

    assert shifts(depths=[3, 2]) == [[0, 2, 0], [0, 1]]
    assert shifts(depths=[1, 4], shifts=[[0], [0, 1, 2]]) == [[0], [0, 1, 2, 0]]


@pytest.mark.parametrize(("name", "dims", "depths", "millions", "gflops"), slow_but(lambda row: row[-2] < 20, [
    ("hire_mlp_tiny", (64, 128, 320, 512), (2, 2, 4, 2), 18, 2.1),
    ("hire_mlp_small", (64, 128, 320, 512), (3, 4, 10, 3), 33, 4.2),
    ("hire_mlp_base", (64, 128, 320, 512), (4, 6, 24, 3), 58, 8.1),
    ("hire_mlp_large", (96, 192, 384, 768), (4, 6, 24, 3), 96, 13.4),
]))
def test_parameters_are_the_sum_of_the_published_layers(name, dims, depths, millions, gflops):
    regions = [width * size * (width // 2) + 2 * (width // 2) + map_size(width // 2, width * size)
               for width, size in zip(dims, (4, 3, 3, 2))]
    branches = [2 * region + map_size(width, width) for region, width in zip(regions, dims)]
    got = size_of(name)
    assert got["parameters"] == layer_sum(dims, depths, (4, 4, 4, 4), branches)
    assert got["parameters"] / 1e6 == pytest.approx(millions, rel=0.01)
    assert got["macs"] / 1e9 == pytest.approx(gflops, abs=0.05)  # published with one digit
