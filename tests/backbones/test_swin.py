"""Swin against its definition in slow loops over positions, its locality."""
import math

import numpy
import paddle
import pytest
from helpers.backbones import small

from passl_mixer.backbones.swin import MASKED, PatchMerging, WindowAttention, window_mask, window_regions
from passl_mixer.errors import BadInput
from passl_mixer.ops.windows import from_windows, to_windows
from passl_mixer.surgery.macs import count_macs

# Height, width, side of a window, shift: multiples or not, one window or several along an axis.
CASES = [(4, 8, 4, 0), (8, 8, 4, 2), (6, 9, 3, 1), (5, 7, 4, 2), (3, 9, 4, 2), (2, 3, 4, 2)]


def displaced_window(y, x, size, side, shift):
    """The window of a position, as the paper draws it: the grid of windows moved by ``shift``, nothing rolled."""
    return tuple((at - (shift if length > side else 0)) // side for at, length in zip((y, x), size))


def test_windows_are_cut_in_rows_and_put_back():
    x = paddle.randn([2, 4, 6, 3])
    windows = to_windows(x, 2)
    assert windows.shape == [2, 6, 4, 3]
    for row in range(2):
        for column in range(3):
            expected = x.numpy()[:, 2 * row:2 * row + 2, 2 * column:2 * column + 2].reshape(2, 4, 3)
            assert (windows.numpy()[:, 3 * row + column] == expected).all()
    assert (from_windows(windows, 4, 6, 2).numpy() == x.numpy()).all()


@pytest.mark.parametrize(("height", "width", "side", "shift"), CASES)
def test_the_mask_joins_positions_of_one_displaced_window(height, width, side, shift):
    shifts = [shift if length > side else 0 for length in (height, width)]
    regions = window_regions((height, width), side, shifts)
    padded = [-(-length // side) * side for length in (height, width)]
    # Roll and cut the coordinates; padding is (-1, -1).
    coordinates = numpy.full((*padded, 2), -1)
    coordinates[:height, :width] = numpy.stack(numpy.mgrid[:height, :width], axis=-1)
    rolled = numpy.roll(coordinates, [-s for s in shifts], axis=(0, 1))
    cut = to_windows(paddle.to_tensor(rolled[None].astype("float32")), side).numpy()[0].astype(int)
    mask = window_mask(regions)
    mask = numpy.zeros((len(cut), 1, side ** 2, side ** 2)) if mask is None else mask.numpy()
    for window, positions in enumerate(cut):
        for i, query in enumerate(positions):
            for j, key in enumerate(positions):
                if query[0] < 0:
                    continue  # what padding attends to is thrown away
                joined = key[0] >= 0 and (displaced_window(*query, (height, width), side, shift)
                                          == displaced_window(*key, (height, width), side, shift))
                assert mask[window, 0, i, j] == (0 if joined else numpy.float32(MASKED))
    assert (regions is None) == (not any(shifts) and padded == [height, width])


def slow_window_attention(x, layer, shift):
    """Equation 4 of the paper, one query at a time, over the positions of its displaced window; x [H, W, C]."""
    height, width, channels = x.shape
    attention, side = layer.attention, layer.side
    depth = channels // layer.num_heads
    qkv = x @ attention.qkv.weight.numpy().astype("float64") + attention.qkv.bias.numpy()
    query, key, value = numpy.split(qkv, 3, axis=-1)
    table = layer.bias_table.numpy().reshape(2 * side - 1, 2 * side - 1, layer.num_heads)
    places = [(y, z) for y in range(height) for z in range(width)]
    mixed = numpy.zeros_like(x)
    for y, z in places:
        own = [p for p in places if displaced_window(*p, (height, width), side, shift)
               == displaced_window(y, z, (height, width), side, shift)]
        for head in range(layer.num_heads):
            part = slice(head * depth, (head + 1) * depth)
            weights = [math.exp(query[y, z, part] @ key[p][part] / math.sqrt(depth)
                                + table[y - p[0] + side - 1, z - p[1] + side - 1, head]) for p in own]
            mixed[y, z, part] = sum(w * value[p][part] for w, p in zip(weights, own)) / sum(weights)
    return mixed @ attention.proj.weight.numpy() + attention.proj.bias.numpy()


@pytest.mark.parametrize(("height", "width", "side", "shift"), CASES)
def test_attention_follows_the_definition(height, width, side, shift):
    layer = WindowAttention(6, num_heads=2, side=side, shift=shift)
    generator = numpy.random.default_rng(height * width)
    for parameter in layer.parameters():
        parameter.set_value(generator.normal(0.0, 0.6, parameter.shape).astype("float32"))
    x = generator.normal(size=(2, height, width, 6))
    got = layer(paddle.to_tensor(x.astype("float32"))).numpy()
    expected = numpy.stack([slow_window_attention(image, layer, shift) for image in x])
    numpy.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)


def test_unshifted_windows_never_mix_and_shifted_ones_do():
    x = paddle.randn([1, 8, 8, 6])
    changed = x.clone()
    changed[:, 1:3, 1:3] = 5.0  # within the first window of four
    for shift, rows in ((0, 4), (2, 8)):
        layer = WindowAttention(6, num_heads=2, side=4, shift=shift)
        moved = (layer(changed) - layer(x)).abs().max(axis=-1).numpy()[0] > 0
        assert moved[:4, :4].any()
        outside = moved.copy()
        outside[:4, :4] = False
        assert outside.any() == (rows == 8)


def test_merging_concatenates_two_by_two_neighbours():
    merge = PatchMerging(3)
    x = numpy.random.default_rng(0).normal(size=(1, 3, 4, 3)).astype("float32")
    padded = numpy.concatenate([x, numpy.zeros((1, 1, 4, 3), "float32")], axis=1)[0]
    got = merge(paddle.to_tensor(x)).numpy()[0]
    assert got.shape == (2, 2, 6)
    for i in range(2):
        for j in range(2):
            both = numpy.concatenate([padded[2 * i + dy, 2 * j + dx] for dy, dx in ((0, 0), (1, 0), (0, 1), (1, 1))])
            both = (both - both.mean()) / numpy.sqrt(both.var() + 1e-5)
            numpy.testing.assert_allclose(got[i, j], both @ merge.reduction.weight.numpy(), atol=1e-5)
    assert merge.reduction.bias is None


def test_counts_by_hand():
    def block(positions, width):
        return positions * 12 * width ** 2 + 2 * positions * 16 * width

    macs = 64 * 12 * 8 + 2 * block(64, 8) + 16 * 32 * 16 + block(16, 16)
    assert count_macs(small("Swin"), 16) == macs


def test_shifts_alternate():
    swin = small("Swin", depths=[3, 2])
    assert [block.attention.shift for stage in swin.stages for block in stage] == [0, 2, 0, 0, 2]


def test_an_exported_program_needs_a_fixed_size():
    paddle.enable_static()
    try:
        with paddle.static.program_guard(paddle.static.Program(), paddle.static.Program()):
            with paddle.utils.unique_name.guard():
                with pytest.raises(BadInput, match="export with a fixed image size"):
                    small("Swin")(paddle.static.data("images", [-1, 3, -1, -1]))
    finally:
        paddle.disable_static()
