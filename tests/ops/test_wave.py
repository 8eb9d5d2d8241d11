"""Wave-MLP's operators by the native kernels give what float64 NumPy gives, forward and backward."""
import numpy as np
import paddle
import pytest
from helpers.gradients import assert_close, run_with_gradients
from helpers.marks import needs_native

from passl_mixer import ops
from passl_mixer.backbones import wave_mlp
from passl_mixer.layers.convolution import torch_conv
from passl_mixer.ops import native, table

pytestmark = needs_native
RNG = np.random.default_rng(0)


def projection(shape):
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


def pair_mix(x, weight):
    padding = [side // 2 for side in weight.shape[2:]]
    return ops.conv2d(x, weight, padding=padding, groups=weight.shape[0], data_format="NHWC")


def defined(x, w):
    """Output and both gradients in float64, tap by tap."""
    x, w = x.astype("float64"), w.astype("float64")
    batch, height, width, _ = x.shape
    chans, _, *kernel = w.shape
    tops = [side // 2 for side in kernel]
    padded = np.pad(x, [(0, 0), *((top, top) for top in tops), (0, 0)]).reshape(
        batch, height + 2 * tops[0], width + 2 * tops[1], chans, 2)
    taps = [(i, j, (slice(None), slice(i, i + height), slice(j, j + width))) for i, j in np.ndindex(*kernel)]
    y = sum((padded[read] * w[:, :, i, j]).sum(-1) for i, j, read in taps)
    g = projection(y.shape).astype("float64")
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    for i, j, read in taps:
        dx[read] += g[..., None] * w[:, :, i, j]
        dw[:, :, i, j] = (g[..., None] * padded[read]).sum((0, 1, 2))
    dx = dx[:, tops[0]:tops[0] + height, tops[1]:tops[1] + width].reshape(x.shape)
    return [y, dx, dw]


# batch, height, width, output channels; the last one is large enough for several threads
SHAPES = [(2, 9, 11, 5), (1, 2, 3, 4), (3, 1, 1, 3), (1, 1, 8, 17), (2, 13, 1, 2), (2, 56, 55, 33)]


@pytest.mark.parametrize("kernel", [(7, 1), (1, 7), (1, 3), (5, 1), (1, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_pair_mix(shape, kernel):
    *place, chans = shape
    arrays = [RNG.standard_normal(s).astype("float32") for s in ((*place, 2 * chans), (chans, 2, *kernel))]
    found = run_with_gradients(pair_mix, arrays)
    assert_close(found, defined(*arrays))
    for frozen in [(0,), (1,)]:
        kept = [None if i - 1 in frozen else value for i, value in enumerate(found)]
        assert_close(run_with_gradients(pair_mix, arrays, frozen=frozen), kept, 0)


@pytest.mark.parametrize("shape", [(2, 5, 3, 7), (1, 1, 1, 1), (4, 28, 27, 40)])
def test_unfold_wave(shape):
    amplitude, phase = RNG.standard_normal(shape).astype("float32"), 9 * RNG.random(shape, "float32")
    found = run_with_gradients(ops.unfold_wave, [amplitude, phase])
    g1, g2 = np.split(projection((*shape[:3], 2 * shape[3])).astype("float64"), 2, axis=-1)
    a, c, s = amplitude.astype("float64"), np.cos(phase.astype("float64")), np.sin(phase.astype("float64"))
    assert_close(found, [np.concatenate([a * c, a * s], -1), g1 * c + g2 * s, a * (g2 * c - g1 * s)])
    frozen = [run_with_gradients(ops.unfold_wave, [amplitude, phase], frozen=(i,)) for i in range(2)]
    assert_close(frozen[0], [found[0], None, found[2]], 0)
    assert_close(frozen[1], [*found[:2], None], 0)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("phase", wave_mlp.PHASES)
def test_the_mixer_takes_them_and_gives_the_same(axis, phase, monkeypatch):
    paddle.seed(0)
    layer = wave_mlp.WaveMix(6, axis=axis, phase=phase)
    x = RNG.standard_normal((2, 5, 9, 6)).astype("float32")

    def run():
        layer.clear_gradients()
        # the bias before BatchNorm has no gradient but rounding
        return run_with_gradients(layer, [x], parameters=[p for n, p in layer.named_parameters()
                                                          if not p.stop_gradient and n != "phase.map.bias"])

    found = run()
    monkeypatch.setattr(native, "load", lambda: None)
    assert_close(found, run(), 5e-6)


def test_both_are_computed_by_the_native_kernels():
    x, weight = paddle.ones([2, 9, 6, 8]), paddle.ones([4, 2, 7, 1])
    chosen = table.choose(ops.TABLE["conv2d"], (x, weight, None, 1, [3, 0], 4, "NHWC"))
    assert chosen.__name__ == "_by_pair_mix"
    assert table.choose(ops.TABLE["unfold_wave"], (x, x)) is not ops.TABLE["unfold_wave"].reference


@pytest.mark.parametrize("options", [{"bias": True}, {"stride": 2}, {"padding": [0, 0]}, {"groups": 1}, {"groups": 2}])
def test_other_convolutions_are_left_to_paddle(options):
    layer = torch_conv(8, 4, (7, 1), **{"padding": [3, 0], "groups": 4, "bias": False, **options})
    x = paddle.to_tensor(RNG.standard_normal((2, 9, 6, 8)).astype("float32"))
    want = layer(x.transpose([0, 3, 1, 2])).transpose([0, 2, 3, 1])
    assert_close([layer(x, data_format="NHWC").numpy()], [want.numpy()])


def test_not_finite_stays_not_finite_and_stays_where_it_is():
    x, w = np.zeros((1, 3, 20, 6), "float32"), np.ones((3, 2, 1, 7), "float32")
    x[0, 1, 10, 3] = np.nan
    bad = np.isnan(pair_mix(paddle.to_tensor(x), paddle.to_tensor(w)).numpy())
    assert bad[0, 1, 7:14, 1].all()
    assert bad.sum() == 7


def test_views_with_strides_are_read_as_they_look():
    x = paddle.to_tensor(RNG.standard_normal((2, 6, 4, 5)).astype("float32")).transpose([0, 2, 3, 1])
    copy = paddle.to_tensor(x.numpy())
    weight = paddle.to_tensor(RNG.standard_normal((3, 2, 7, 1)).astype("float32"))
    np.testing.assert_array_equal(pair_mix(x, weight).numpy(), pair_mix(copy, weight).numpy())
    np.testing.assert_array_equal(ops.unfold_wave(x, x).numpy(), ops.unfold_wave(copy, copy).numpy())


@pytest.mark.parametrize("axis", [1, 2])
def test_wave_mix_of_any_phase(axis):
    """Around every quarter turn, beyond what the polynomials take, and infinite: cosine and sine as NumPy has them."""
    quarters = np.arange(-40, 41) * (np.pi / 2)
    far = [6.5e4, 65537.0, -1e7, 3e9]
    phases = np.concatenate([quarters, quarters + 1e-3, quarters - 0.785, far]).astype("float32")
    shape = (1, 1, len(phases), 1) if axis == 2 else (1, len(phases), 1, 1)
    phase = np.repeat(phases.reshape(shape), 2, axis=3)
    amplitude = np.ones_like(phase)
    weight = np.zeros((2, 2, 1, 1), "float32")
    weight[0, 0], weight[1, 1] = 1, 1           # the first channel is a cosine, the second a sine
    y = ops.wave_mix(*map(paddle.to_tensor, (amplitude, phase, weight))).numpy().reshape(-1, 2)
    exact = phases.astype("float64")
    np.testing.assert_allclose(y, np.stack([np.cos(exact), np.sin(exact)], 1), rtol=0, atol=3e-7)
    phase.reshape(-1, 2)[5], phase.reshape(-1, 2)[9] = np.inf, np.nan
    bad = np.isnan(ops.wave_mix(*map(paddle.to_tensor, (amplitude, phase, weight))).numpy().reshape(-1, 2))
    assert bad[[5, 9]].all()
    assert bad.sum() == 4
