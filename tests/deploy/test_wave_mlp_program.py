"""Wave-MLP's form for programs is the same function, also by oneDNN, and the network stays what it was."""
import json

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from passl_mixer import build_backbone
from passl_mixer.deploy.export import export_network, load_exported
from passl_mixer.deploy.forms import for_program
from passl_mixer.deploy.wave_mlp import bands, mix_pairs


def assert_close(found, wanted):
    wanted = wanted.numpy()
    assert list(found.shape) == list(wanted.shape)
    assert np.abs(np.asarray(found) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def changed(**options):
    """A small network in evaluation mode whose norms and biases differ by channel."""
    paddle.seed(2)
    network = build_backbone({"name": "WaveMLP", "embed_dims": [8, 5, 6], "depths": [2, 1, 1], "mlp_ratios": [2, 2, 1],
                              **options})
    for value in network.state_dict().values():
        if value.ndim == 1:
            value.set_value(value + 0.2 * paddle.rand(value.shape))
    network.eval()
    return network


def test_a_band_has_the_taps_on_its_diagonals():
    weight = paddle.to_tensor([[[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]])
    assert bands(weight, 4).tolist() == [[[[2, 1, 0, 0], [3, 2, 1, 0], [0, 3, 2, 1], [0, 0, 3, 2]],
                                          [[5, 4, 0, 0], [6, 5, 4, 0], [0, 6, 5, 4], [0, 0, 6, 5]]]]


@pytest.mark.parametrize("kernel", [(7, 1), (1, 7)])
@pytest.mark.parametrize(("height", "width", "channels"), [(9, 4, 8), (1, 8, 5), (2, 1, 3)])
def test_products_with_bands_are_the_grouped_convolution(kernel, height, width, channels):
    paddle.seed(0)
    x, weight = paddle.randn([2, 2 * channels, height, width]), paddle.randn([channels, 2, *kernel])
    wanted = F.conv2d(x, weight, padding=[side // 2 for side in kernel], groups=channels)
    assert_close(mix_pairs(x, weight), wanted)


@pytest.mark.parametrize("options", [{}, {"phase": "depthwise"}, {"norms": ["group", "none"]}])
def test_features_and_maps(options):
    network = changed(**options)
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    images = paddle.randn([2, 3, 40, 28])
    other = for_program(network)
    with paddle.no_grad():
        pairs = [(network(images), other(images)), *zip(network.feature_maps(images), other.feature_maps(images))]
    assert len(pairs) == 4
    for wanted, found in pairs:
        assert_close(found, wanted)
    assert before.keys() == network.state_dict().keys()
    assert all(np.array_equal(before[name], value.numpy()) for name, value in network.state_dict().items())


@pytest.mark.parametrize("phase", ["fc", "depthwise"])
def test_products_by_onednn_keep_cosine_and_sine_apart(tmp_path, phase):
    """Paddle 3.3.1 would compute the cosine of the sine; see ``PlaneMix``."""
    network = changed(phase=phase)
    export_network(network, tmp_path / "out", img_size=32)
    images = np.random.default_rng(0).standard_normal([3, 3, 32, 32]).astype("float32")
    with paddle.no_grad():
        wanted = network(paddle.to_tensor(images))
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    for operators in ("products", "none"):
        (tmp_path / "out" / "export.json").write_text(json.dumps({**facts, "operators": operators}))
        assert_close(load_exported(tmp_path / "out")(images), wanted)
        assert_close(load_exported(tmp_path / "out")(images[:1]), wanted[:1])
