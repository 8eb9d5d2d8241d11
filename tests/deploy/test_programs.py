"""AS-MLP, CycleMLP and Wave-MLP in the forms for programs: the same functions; the networks stay what they were."""
import json

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers.arrays import assert_same, state_of
from helpers.gradients import assert_close

from passl_mixer import build_backbone
from passl_mixer.deploy.as_mlp import FlatBlock
from passl_mixer.deploy.cycle_mlp import shift_order
from passl_mixer.deploy.export import export_network, load_exported
from passl_mixer.deploy.forms import for_program
from passl_mixer.deploy.wave_mlp import bands, mix_pairs

AS = {"name": "ASMLP", "patch_size": 2, "embed_dim": 10, "depths": [2, 1], "mlp_ratio": 2, "drop_path_rate": 0.5}
CYCLE = {"name": "CycleMLP", "depths": [2, 1, 1], "mlp_ratios": [2, 2, 1]}
WAVE = {"name": "WaveMLP", "embed_dims": [8, 5, 6], "depths": [2, 1, 1], "mlp_ratios": [2, 2, 1]}


def changed(cfg):
    """A network in evaluation mode with large weights, whose norms and biases differ by channel."""
    paddle.seed(2)
    network = build_backbone(cfg)
    for value in network.state_dict().values():
        value.set_value(value + 0.2 * (paddle.rand if value.ndim == 1 else paddle.randn)(value.shape))
    network.eval()
    return network


@pytest.mark.parametrize("cfg", [
    AS, {**AS, "embed_dim": 7, "shift_size": 3, "depths": [1], "in_chans": 1}, {**CYCLE, "embed_dims": [9, 10, 11]},
    {**CYCLE, "embed_dims": [4, 6, 5]}, WAVE, {**WAVE, "phase": "depthwise"}, {**WAVE, "norms": ["group", "none"]}],
    ids=lambda cfg: cfg["name"])
def test_features_and_maps(cfg):
    network = changed(cfg)
    before = state_of(network)
    images = paddle.randn([2, network.in_chans, 40, 28])
    other = for_program(network)
    other.eval()
    with paddle.no_grad():
        expected, results = ([net(images), *net.feature_maps(images)] for net in (network, other))
    assert len(expected) == 1 + len(network.stages)
    assert_close(results, expected, 1e-5)
    assert not any(isinstance(layer, FlatBlock) for layer in network.sublayers())
    assert_same(state_of(network), before)


def test_the_order_of_cycle_mlps_channels():
    assert shift_order(7).tolist() == [0, 3, 6, 1, 4, 2, 5]


def test_a_band_has_the_taps_on_its_diagonals():
    weight = paddle.to_tensor([[[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]])
    assert bands(weight, 4).tolist() == [[[[2, 1, 0, 0], [3, 2, 1, 0], [0, 3, 2, 1], [0, 0, 3, 2]],
                                          [[5, 4, 0, 0], [6, 5, 4, 0], [0, 6, 5, 4], [0, 0, 6, 5]]]]


@pytest.mark.parametrize("kernel", [(7, 1), (1, 7)])
@pytest.mark.parametrize(("height", "width", "channels"), [(9, 4, 8), (1, 8, 5), (2, 1, 3)])
def test_products_with_bands_are_the_grouped_convolution(kernel, height, width, channels):
    paddle.seed(0)
    x, weight = paddle.randn([2, 2 * channels, height, width]), paddle.randn([channels, 2, *kernel])
    expected = F.conv2d(x, weight, padding=[side // 2 for side in kernel], groups=channels)
    assert_close([mix_pairs(x, weight)], [expected], 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["fc", "depthwise"])
def test_products_by_onednn_keep_cosine_and_sine_apart(tmp_path, phase):
    """Paddle 3.3.1 would compute the cosine of the sine; see ``PlaneMix``."""
    network = changed({**WAVE, "phase": phase})
    export_network(network, tmp_path / "out", img_size=32)
    images = np.random.default_rng(0).standard_normal([3, 3, 32, 32]).astype("float32")
    with paddle.no_grad():
        expected = network(paddle.to_tensor(images))
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    for operators in ("products", "none"):
        (tmp_path / "out" / "export.json").write_text(json.dumps({**facts, "operators": operators}))
        loaded = load_exported(tmp_path / "out")
        assert_close([loaded(images), loaded(images[:1])], [expected, expected[:1]], 1e-5)
