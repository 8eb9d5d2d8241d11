"""S2-MLP v1 and v2 against their definition written position by position, and what the shift promises."""
import math

import numpy
import paddle
import pytest

from passl_mixer.backbones import build_backbone
from passl_mixer.backbones.s2_mlp_v1 import HEIGHT_FIRST, WIDTH_FIRST, S2Block, spatial_shift
from passl_mixer.backbones.s2_mlp_v2 import S2Mixer
from passl_mixer.errors import BadInput
from passl_mixer.layers.basic import DropPath, LayerNorm
from passl_mixer.layers.stages import ResidualBlock
from passl_mixer.ops.quarters import shift_map
from passl_mixer.surgery.macs import count_parameters

SMALL = {
    "S2MLPv1": {"patch_size": 4, "embed_dim": 8, "num_blocks": 2, "mlp_ratio": 2},
    "S2MLPv2": {"patch_sizes": [2, 2], "embed_dims": [8, 12], "depths": [1, 2], "mlp_ratio": 1.5},
}
# (row, column) that every quarter of the channels is read from, in the order of the paper's pseudo-code.
READ_FROM = {HEIGHT_FIRST: [(-1, 0), (1, 0), (0, -1), (0, 1)], WIDTH_FIRST: [(0, -1), (0, 1), (-1, 0), (1, 0)]}


def small(name, **options):
    return build_backbone({"name": name, **SMALL[name], **options})


def slow_shift(x, axes):
    """Every position reads its neighbour; where there is none it keeps its own value."""
    y = x.copy()
    for b, i, j, c in numpy.ndindex(x.shape):
        di, dj = READ_FROM[axes][c // (x.shape[3] // 4)]
        if 0 <= i + di < x.shape[1] and 0 <= j + dj < x.shape[2]:
            y[b, i, j, c] = x[b, i + di, j + dj, c]
    return y


def gelu(x):
    return numpy.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))(x)


def linear(layer, x):
    y = x @ layer.weight.numpy().astype("float64")
    return y if layer.bias is None else y + layer.bias.numpy()


def normed(layer, x):
    y = (x - x.mean(-1, keepdims=True)) / numpy.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return y * layer.weight.numpy() + layer.bias.numpy()


def slow_mlp(block, x):
    return x + linear(block.mlp.fc2, gelu(linear(block.mlp.fc1, normed(block.norm2, x))))


def slow_v1(block, x):
    hidden = gelu(linear(block.fc1, normed(block.norm1, x)))
    return slow_mlp(block, x + linear(block.fc2, slow_shift(hidden, HEIGHT_FIRST)))


def slow_v2(block, x):
    width, mixer = x.shape[3], block.mixer
    wide = linear(mixer.expand, normed(block.norm1, x))
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


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_features_maps_and_gradients(name, in_chans):
    paddle.seed(0)
    backbone = small(name, in_chans=in_chans)
    images = paddle.randn([2, in_chans, 16, 24])
    features, maps = backbone(images), backbone.feature_maps(images)
    assert backbone.img_size is None
    assert features.shape == [2, backbone.num_features]
    assert [m.shape for m in maps] == [[2, channels, 16 // stride, 24 // stride] for channels, stride
                                       in zip(backbone.feature_channels, backbone.feature_strides)]
    last = maps[-1].transpose([0, 2, 3, 1])
    last = last if name == "S2MLPv1" else backbone.norm(last)  # the map of v1 is normalised already
    assert float((last.mean(axis=[1, 2]) - features).abs().max()) < 1e-5
    assert float((backbone(images[1:]) - features[1:]).abs().max()) < 1e-5
    (features * paddle.randn(features.shape)).sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, parameter_name


@pytest.mark.parametrize("name", ["s2_mlp_v1_nano", "s2_mlp_v2_nano"])
def test_nano_takes_small_images(name):
    nano = build_backbone(name)
    assert 300_000 <= count_parameters(nano) <= 1_500_000
    for size in (28, 32, 36):
        assert nano.feature_maps(paddle.randn([1, 3, size, size]))[-1].shape[2] == size // 4


@pytest.mark.parametrize("name", SMALL)
def test_drop_path_rises_over_all_blocks_and_acts_in_training_only(name):
    deeper = {"num_blocks": 5} if name == "S2MLPv1" else {"depths": [2, 3]}
    backbone = small(name, drop_path_rate=0.8, **deeper)
    rates = [layer.rate for layer in backbone.sublayers() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    paddle.seed(0)
    images = 10 * paddle.randn([8, 3, 16, 16])
    assert float((backbone(images) - backbone(images)).abs().max()) > 1e-4
    backbone.eval()
    assert float((backbone(images) - backbone(images)).abs().max()) == 0


def test_initial_weights_follow_the_recipe_of_vip():
    paddle.seed(0)
    v1, v2 = build_backbone("s2_mlp_v1_nano"), build_backbone("s2_mlp_v2_nano")
    for layer in (v1.blocks[0].fc1, v1.blocks[0].mlp.fc1, v2.stages[1][0].mixer.expand, v2.stages[1][0].mixer.proj):
        assert float(layer.weight.std()) == pytest.approx(0.02, rel=0.15)  # Paddle 2.6 cuts it
        assert float(layer.bias.abs().max()) == 0
    attention = v2.stages[1][0].mixer.attention
    assert attention.fc1.bias is None
    assert attention.fc1.weight.shape == [128, 32]
    assert attention.fc2.weight.shape == [32, 384]
    for conv, fan_in in ((v1.stem, 48), (v2.stems[0], 12), (v2.stems[1], 64 * 4)):
        bound = 1 / math.sqrt(fan_in)
        assert 0.98 * bound < float(conv.weight.abs().max()) <= bound
    assert {layer.epsilon for layer in v1.sublayers() if isinstance(layer, LayerNorm)} == {1e-5}


@pytest.mark.parametrize(("name", "options", "words"), [
    ("S2MLPv1", {"embed_dim": 10}, "embed_dim is 10, expected multiples of 4 .*; take 8 or 12 for 10"),
    ("S2MLPv1", {"embed_dim": 3}, "take 4 for 3"),
    ("S2MLPv1", {"mlp_ratio": 0.01}, "no hidden unit at embed_dim 8"),
    ("S2MLPv1", {"act": "gelu_tan"}, "did you mean 'gelu_tanh'"),
    ("S2MLPv1", {"drop_path_rate": 1.0}, "drop_path_rate is 1.0"),
    ("S2MLPv2", {"embed_dims": [8, 14]}, r"embed_dims is \[8, 14\].*take 12 or 16 for 14"),
    ("S2MLPv2", {"depths": [1]}, "patch_sizes has 2, embed_dims has 2, depths has 1 entries"),
    ("S2MLPv2", {"patch_sizes": [2, 0]}, "patch_sizes is"),
    ("S2MLPv2", {"img_size": 32}, "has no option 'img_size'"),
])
def test_options_that_do_not_fit(name, options, words):
    with pytest.raises(BadInput, match=words):
        small(name, **options)


@pytest.mark.parametrize("name", SMALL)
def test_sizes_that_do_not_fit_name_some_that_do(name):
    with pytest.raises(BadInput, match="30 x 16 pixels, expected multiples of 4; 28 x 16 and 32 x 20 fit"):
        small(name)(paddle.zeros([1, 3, 30, 16]))
    with pytest.raises(BadInput, match="3 x 2 pixels, expected multiples of 4; 4 x 4 and 4 x 4 fit"):
        small(name)(paddle.zeros([1, 3, 3, 2]))
    with pytest.raises(BadInput, match=r"expected \[B, 3, H, W\]"):
        small(name)(paddle.zeros([1, 1, 16, 16]))


@pytest.mark.parametrize("name", SMALL)
def test_an_exported_program_takes_other_sizes(name, tmp_path):
    backbone = small(name)
    backbone.eval()
    images = paddle.randn([2, 3, 16, 12])
    expected = backbone(images).numpy()
    spec = [paddle.static.InputSpec([None, 3, None, None])]
    paddle.jit.save(paddle.jit.to_static(backbone, input_spec=spec, full_graph=True), str(tmp_path / "net"))
    exported = paddle.jit.load(str(tmp_path / "net"))
    numpy.testing.assert_allclose(exported(images).numpy(), expected, atol=1e-5)
