"""CycleMLP with sorted channels is the same function, and the network it is made of stays what it was."""
import numpy as np
import paddle
import pytest

from passl_mixer import build_backbone
from passl_mixer.deploy.cycle_mlp import shift_order
from passl_mixer.deploy.forms import for_program


def test_the_order_of_the_channels():
    assert shift_order(7).tolist() == [0, 3, 6, 1, 4, 2, 5]


@pytest.mark.parametrize("widths", [[9, 10, 11], [4, 6, 5]])
def test_features_and_maps(widths):
    paddle.seed(2)
    network = build_backbone({"name": "CycleMLP", "embed_dims": widths, "depths": [2, 1, 1], "mlp_ratios": [2, 2, 1]})
    for value in network.state_dict().values():
        value.set_value(value + 0.2 * paddle.randn(value.shape))        # norms and biases, too, differ by channel
    network.eval()
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    images = paddle.randn([2, 3, 40, 28])
    sorted_network = for_program(network)
    sorted_network.eval()
    with paddle.no_grad():
        pairs = [(network(images), sorted_network(images)),
                 *zip(network.feature_maps(images), sorted_network.feature_maps(images))]
    assert len(pairs) == 4
    for wanted, found in pairs:
        assert wanted.shape == found.shape
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert all(np.array_equal(before[name], value.numpy()) for name, value in network.state_dict().items())
