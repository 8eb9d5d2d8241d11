"""ViP: its permutation against the definition, its segments."""
import numpy
import paddle
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.vip import PermuteMixer, exchange
from passl_mixer.surgery.macs import shapes_only


def permute_branch(x, weight, axis):
    """A height (axis 1) or width (2) branch one output at a time: x [B, N, N, C], weight [C, C] as [in, out]."""
    batch, n, _, width = x.shape
    per_group = width // n
    y = numpy.zeros_like(x)
    for b, i, j, k, s in numpy.ndindex(batch, n, n, n, per_group):
        column = (i if axis == 1 else j) * per_group + s
        for position in range(n):
            row, col = (position, j) if axis == 1 else (i, position)
            for t in range(per_group):
                y[b, i, j, k * per_group + s] += \
                    x[b, row, col, k * per_group + t] * weight[position * per_group + t, column]
    return y


@pytest.mark.parametrize("axis", [1, 2])
def test_a_branch_mixes_positions_within_a_group(axis):
    rng = numpy.random.default_rng(axis)
    x, weight = rng.normal(size=(2, 3, 3, 6)).astype("float32"), rng.normal(size=(6, 6)).astype("float32")
    there = exchange(paddle.to_tensor(x), axis, 3)
    back = exchange(paddle.matmul(there, paddle.to_tensor(weight)), axis, 3)
    numpy.testing.assert_allclose(back.numpy(), permute_branch(x, weight, axis), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [1, 2])
def test_the_exchange_is_its_own_inverse(axis):
    x = paddle.randn([2, 4, 4, 12])
    once = exchange(x, axis, 4)
    assert float((once - x).abs().max()) > 0
    assert float((exchange(once, axis, 4) - x).abs().max()) == 0


def test_identity_weights_make_the_mixer_the_identity():
    mixer = PermuteMixer(12, 4)
    for layer in (mixer.along_height, mixer.along_width, mixer.channel, mixer.proj):
        layer.weight.set_value(paddle.eye(12))
    x = paddle.randn([2, 4, 4, 12])
    # Whatever the three shares are, they sum to one.
    mixer.reweight2.weight.set_value(paddle.randn([3, 36]))
    numpy.testing.assert_allclose(mixer(x).numpy(), x.numpy(), atol=1e-5)


@pytest.mark.parametrize(("name", "segment_dims"), [
    ("vip_s14", (16, 16, 16, 16)), ("vip_s7", (32, 16, 16, 16)), ("vip_m7", (32, 32, 16, 16)),
    ("vip_l7", (32, 16, 16, 16))])
def test_segment_dims_of_the_official_code(name, segment_dims):
    with shapes_only():
        shallow = build_backbone({"name": name, "depths": [1, 1, 1, 1], "segment_dims": segment_dims})
    assert shallow.segment_dims == segment_dims


def test_segments_follow_the_image_size():
    for size in (28, 32):
        assert build_backbone({"name": "vip_nano", "img_size": size}).segment_dims == (size // 4,)
