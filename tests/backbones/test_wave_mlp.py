"""Wave-MLP: its mixer against the definition with loops over positions, taps and groups, and phases."""
import numpy
import paddle
import pytest
from helpers.backbones import size_of
from helpers.definitions import batch_norm, linear
from helpers.marks import slow_but
from helpers.three_branches import joined, layer_sum, map_size, randomised

from passl_mixer import ops
from passl_mixer.backbones.wave_mlp import NORMS, WaveMix, WaveMixer


def phase_of(layer, x):
    """Definition of one image's phases [H, W, C]."""
    height, width, chans = x.shape
    if layer.depthwise:
        mapped = numpy.zeros_like(x)
        for i, j, c in numpy.ndindex(height, width, chans):
            for di, dj in numpy.ndindex(3, 3):
                if 0 <= i + di - 1 < height and 0 <= j + dj - 1 < width:
                    mapped[i, j, c] += layer.map.weight.numpy()[c, 0, di, dj] * x[i + di - 1, j + dj - 1, c]
    else:
        mapped = linear(layer.map, x)
    return numpy.maximum(batch_norm(layer.norm, mapped), 0)


def mixed_along(layer, x, axis):
    """Definition of phase-aware mixing: output j reads the parts 2 j and 2 j + 1 in 7 positions of its axis."""
    chans = x.shape[2]
    theta, amplitude = phase_of(layer.phase, x), x @ layer.amplitude.weight.numpy()
    parts = [amplitude[..., c] * numpy.cos(theta[..., c]) for c in range(chans)]
    parts += [amplitude[..., c] * numpy.sin(theta[..., c]) for c in range(chans)]
    weight = layer.mix.weight.numpy().reshape(chans, 2, 7)
    out = numpy.zeros_like(x)
    for j, part, tap in numpy.ndindex(chans, 2, 7):
        for position in range(x.shape[axis]):
            read = position + tap - 3
            if 0 <= read < x.shape[axis]:
                index, source = ((position, slice(None)), (read, slice(None))) if axis == 0 else \
                    ((slice(None), position), (slice(None), read))
                out[(*index, j)] += weight[j, part, tap] * parts[2 * j + part][source]
    return out


@pytest.mark.parametrize("phase", ["fc", "depthwise"])
@pytest.mark.parametrize(("height", "width", "chans"), [(9, 4, 8), (1, 8, 5)])
def test_mixer_is_the_definition(phase, height, width, chans):
    mixer = randomised(WaveMixer(chans, phase=phase))
    x = numpy.random.default_rng(1).normal(size=(height, width, chans)).astype("float32")
    w, h = mixed_along(mixer.along_width, x, 1), mixed_along(mixer.along_height, x, 0)
    expected = joined(mixer, (w, h, x @ mixer.channel.weight.numpy()))
    got = mixer(paddle.to_tensor(x[None])).numpy()[0]
    numpy.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * numpy.abs(expected).max())


def test_a_phase_turns_an_amplitude_and_keeps_its_size():
    paddle.seed(0)
    amplitude, phase = paddle.randn([2, 3, 3, 4]), 3 * paddle.rand([2, 3, 3, 4])
    real, imaginary = (part.numpy() for part in ops.unfold_wave(amplitude, phase).chunk(2, axis=-1))
    numpy.testing.assert_allclose(real ** 2 + imaginary ** 2, amplitude.numpy() ** 2, rtol=1e-4, atol=1e-6)
    expected = amplitude.numpy() * numpy.exp(1j * phase.numpy())
    numpy.testing.assert_allclose(real + 1j * imaginary, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["fc", "depthwise"])
def test_without_phases_the_sine_part_vanishes(kind):
    layer = WaveMix(8, axis=2, phase=kind)
    layer.eval()
    x = paddle.randn([2, 4, 9, 8])
    assert float(layer(x)[..., 4:].abs().max()) > 0
    assert float(layer.phase(x).min()) == 0  # never negative
    layer.phase.norm.weight.set_value(paddle.zeros([8]))  # the bias is zero from the start
    assert float(layer.phase(x).abs().max()) == 0
    amplitude = layer.amplitude(x)
    real, imaginary = ops.unfold_wave(amplitude, layer.phase(x)).chunk(2, axis=-1)
    assert (real.numpy() == amplitude.numpy()).all()
    assert (imaginary.numpy() == 0).all()
    assert (layer(x)[..., 4:].numpy() == 0).all()  # the outputs that read sine parts
    assert float(layer(x)[..., :4].abs().max()) > 0


def test_mixing_reads_seven_positions_of_its_axis():
    paddle.seed(0)
    for axis in (1, 2):
        layer = WaveMix(8, axis=axis, phase="fc")
        layer.eval()
        x = paddle.randn([1, 11, 11, 8])
        x.stop_gradient = False
        (layer(x)[0, 5, 5] * paddle.randn([8])).sum().backward()
        rows, columns = numpy.nonzero(numpy.abs(x.grad.numpy()[0]).sum(-1))
        along, across = (rows, columns) if axis == 1 else (columns, rows)
        assert set(along) == set(range(2, 9))
        assert set(across) == {5}


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_group_norm_is_over_a_whole_image(data_format):
    x = numpy.random.default_rng(2).normal(size=(2, 3, 5, 4)).astype("float32")
    layer = NORMS["group"][data_format == "NCHW"](4)
    scale = numpy.arange(4, dtype="float32")
    layer.weight.set_value(paddle.to_tensor(scale))
    layer.bias.set_value(paddle.to_tensor(-scale))
    given = paddle.to_tensor(x if data_format == "NHWC" else x.transpose(0, 3, 1, 2).copy())
    got = layer(given).numpy()
    got = got if data_format == "NHWC" else got.transpose(0, 2, 3, 1)
    mean, variance = x.mean((1, 2, 3), keepdims=True), x.var((1, 2, 3), keepdims=True)
    numpy.testing.assert_allclose(got, (x - mean) / numpy.sqrt(variance + 1e-5) * scale - scale, rtol=1e-3,
                                  atol=1e-5)


@pytest.mark.parametrize(("name", "layers", "millions", "gflops"), slow_but(lambda row: row[-2] < 20, [
    ("wave_mlp_t_star", ((64, 128, 320, 512), (2, 2, 4, 2), (4, 4, 4, 4), True, True), 15, 2.1),
    ("wave_mlp_t", ((64, 128, 320, 512), (2, 2, 4, 2), (4, 4, 4, 4), False, True), 17, 2.4),
    ("wave_mlp_s", ((64, 128, 320, 512), (2, 3, 10, 3), (4, 4, 4, 4), False, True), 30, 4.5),
    ("wave_mlp_m", ((64, 128, 320, 512), (3, 4, 18, 3), (8, 8, 4, 4), False, False), 44, 7.9),
    ("wave_mlp_b", ((96, 192, 384, 768), (2, 2, 18, 2), (4, 4, 4, 4), False, False), 63, 10.22),
]))
def test_parameters_are_the_sum_of_the_published_layers(name, layers, millions, gflops):
    dims, depths, ratios, depthwise, conv_norms = layers
    phases = [(9 * width if depthwise else map_size(width, width)) + 2 * width for width in dims]
    branches = [2 * (phase + width * width + 2 * 7 * width) + width * width for phase, width in zip(phases, dims)]
    got = size_of(name)
    assert got["parameters"] == layer_sum(dims, depths, ratios, branches, conv_norms=conv_norms)
    assert got["parameters"] // 10 ** 6 == millions  # published without the rest
    assert got["macs"] / 1e9 == pytest.approx(gflops, abs=0.07)  # published with one digit, T* and T cut
