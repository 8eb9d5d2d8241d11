"""AS-MLP's form for programs is the same function, and the network stays what it was."""
import numpy as np
import paddle
import pytest

from passl_mixer import build_backbone
from passl_mixer.deploy.as_mlp import FlatBlock
from passl_mixer.deploy.forms import for_program


@pytest.mark.parametrize("options", [{}, {"embed_dim": 7, "shift_size": 3, "depths": [1], "in_chans": 1}])
def test_features_and_maps(options):
    paddle.seed(2)
    network = build_backbone({"name": "ASMLP", "patch_size": 2, "embed_dim": 10, "depths": [2, 1], "mlp_ratio": 2,
                              "drop_path_rate": 0.5, **options})
    for value in network.state_dict().values():
        if value.ndim == 1:
            value.set_value(value + 0.2 * paddle.rand(value.shape))     # norms and biases, too, differ by channel
    network.eval()
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    images = paddle.randn([2, network.in_chans, 20, 12])
    other = for_program(network)
    with paddle.no_grad():
        pairs = [(network(images), other(images)), *zip(network.feature_maps(images), other.feature_maps(images))]
    assert len(pairs) == 1 + len(network.stages)
    for wanted, found in pairs:
        assert wanted.shape == found.shape
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
    assert not any(isinstance(layer, FlatBlock) for layer in network.sublayers())
    assert before.keys() == network.state_dict().keys()
    assert all(np.array_equal(before[name], value.numpy()) for name, value in network.state_dict().items())
