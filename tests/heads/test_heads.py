"""Heads: their structure, their published forms, what bad options get."""
import numpy as np
import paddle
import pytest
from paddle import nn

from passl_mixer.errors import BadInput
from passl_mixer.heads import build_head, require_projector


def kinds(head):
    return [type(layer).__name__ for layer in head.mlp]


def biases(head):
    return [layer.bias is not None for layer in head.mlp if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("name", ["linear", "MlpMixerClsHead", "ClasHead"])
def test_linear_head_starts_at_zero(name):
    head = build_head({"name": name, "num_classes": 7}, in_features=5)
    assert (head.in_features, head.out_features) == (5, 7)
    assert set(head.state_dict()) == {"fc.weight", "fc.bias"}
    assert np.array_equal(head(paddle.rand([3, 5])).numpy(), np.zeros([3, 7]))


PUBLISHED = {
    "simclr_v1": ({"layers": 2, "out": 128, "norm": "bn", "last_norm": True, "init_std": 0.01},
                  ["Linear", "BatchNorm1D", "ReLU", "Linear", "BatchNorm1D"], [False, False]),
    "simclr_v2": ({"layers": 3, "out": 128, "norm": "bn", "last_norm": True, "init_std": 0.01},
                  ["Linear", "BatchNorm1D", "ReLU"] * 2 + ["Linear", "BatchNorm1D"], [False] * 3),
    "moco_v1": ({"layers": 1, "out": 128, "norm": None}, ["Linear"], [True]),
    "moco_v2": ({"layers": 2, "out": 128, "norm": None}, ["Linear", "ReLU", "Linear"], [True, True]),
    "byol": ({"layers": 2, "hidden": 64, "out": 16, "norm": "bn", "hidden_bias": True, "last_bias": False},
             ["Linear", "BatchNorm1D", "ReLU", "Linear"], [True, False]),
    "simsiam": ({"layers": 3, "hidden": 64, "out": 64, "norm": "bn", "last_norm": True, "last_affine": False},
                ["Linear", "BatchNorm1D", "ReLU"] * 2 + ["Linear", "BatchNorm1D"], [False] * 3),
    "moco_v3_resnet": ({"layers": 2, "hidden": 64, "out": 16, "norm": "bn", "last_bias": False},
                       ["Linear", "BatchNorm1D", "ReLU", "Linear"], [False, False]),
    "layer_norm": ({"norm": "ln", "last_norm": True}, ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm"],
                   [False, False]),
}


@pytest.mark.parametrize("form", PUBLISHED)
def test_published_forms(form):
    options, expected, expected_biases = PUBLISHED[form]
    head = build_head({"name": "mlp", **options}, in_features=24)
    assert kinds(head) == expected
    assert biases(head) == expected_biases
    assert head.hidden == options.get("hidden", 24)
    assert list(head(paddle.rand([4, 24])).shape) == [4, head.out_features]
    if options.get("last_norm"):
        assert head.mlp[-1].bias is None
        assert (head.mlp[-1].weight is not None) == options.get("last_affine", True)


def test_mlp_is_its_formula():
    head = build_head({"name": "mlp", "layers": 2, "hidden": 6, "out": 3, "norm": "bn", "last_norm": True}, 5)
    x = np.random.default_rng(0).normal(size=[8, 5]).astype("float32")

    def normalise(a):
        return (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5)

    hidden = np.maximum(normalise(x @ head.mlp[0].weight.numpy()), 0)
    expected = normalise(hidden @ head.mlp[3].weight.numpy())
    np.testing.assert_allclose(head(paddle.to_tensor(x)).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_initial_weights():
    normal = build_head({"name": "mlp", "layers": 1, "out": 200, "init_std": 0.01}, 100).mlp[0]
    assert abs(normal.weight.numpy().std() - 0.01) < 5e-4
    assert not normal.bias.numpy().any()
    uniform = build_head({"name": "mlp", "layers": 1, "out": 200}, 100).mlp[0]
    for values in (uniform.weight.numpy(), uniform.bias.numpy()):
        assert 0.09 < np.abs(values).max() <= 0.1


def test_width_comes_from_the_backbone_or_the_configuration():
    passl = {"name": "ClasHead", "num_classes": 2, "in_channels": 3}
    assert build_head({"name": "linear", "num_classes": 2, "in_features": 3}).in_features == 3
    assert build_head(passl).in_features == 3
    assert build_head(passl, in_features=3).in_features == 3
    assert build_head("mlp", in_features=3).out_features == 128
    with pytest.raises(BadInput, match="of the backbone = 4, in_channels of the head = 3"):
        build_head(passl, in_features=4)
    with pytest.raises(BadInput, match="needs in_features"):
        build_head({"name": "linear", "num_classes": 2})


@pytest.mark.parametrize(("cfg", "words"), [
    ({"name": "liner", "num_classes": 2}, "did you mean 'linear'"),
    ({"name": "linear", "num_clases": 2}, "did you mean 'num_classes'"),
    ({"name": "linear"}, "needs option 'num_classes'"),
    ({"name": "linear", "num_classes": 0}, "num_classes >= 1"),
    ({"name": "linear", "num_classes": 2, "in_features": "3"}, "expected an integer"),
    ({"name": "ClasHead", "num_classes": 2, "with_avg_pool": True}, "no option 'with_avg_pool'"),
    ({"name": "mlp", "layers": 0}, ">= 1"),
    ({"name": "mlp", "norm": "batch"}, "'bn', 'ln' or null"),
    ({"name": "mlp", "norm": None, "last_norm": True}, "last_norm: true needs norm"),
    ({"name": "mlp", "last_affine": False}, "last_affine: false needs last_norm: true"),
    ({"name": "mlp", "init_std": -1.0}, "init_std"),
])
def test_bad_options(cfg, words):
    with pytest.raises(BadInput, match=words):
        build_head(cfg, in_features=None if "in_features" in cfg else 4)


def test_self_supervised_methods_refuse_the_zero_head():
    require_projector(build_head("mlp", 4), "simclr")
    with pytest.raises(BadInput, match="needs a projector"):
        require_projector(build_head({"name": "linear", "num_classes": 2}, 4), "simclr")
