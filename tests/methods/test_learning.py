"""Every trainable parameter gets a gradient: every method with every form of head around every nano backbone."""
import copy

import numpy as np
import paddle
import pytest
from helpers.backbones import NANO, known_options
from helpers.marks import slow_but
from helpers.methods import METHODS, SELF_SUPERVISED
from paddle import nn

from passl_mixer import build_backbone, build_head, build_method
from passl_mixer.errors import BadInput
from passl_mixer.training.run import build_run
from passl_mixer.training.step import refuse_without_gradient, train_step

BACKBONES = {**{name: {"name": name, **known_options(name, img_size=32)} for name in NANO},
             "resnet18": {"name": "resnet18", "stem": "cifar"}}
SMALL = {"name": "mlp", "hidden": 8, "out": 8}
HEADS = {
    "linear": {"name": "linear", "num_classes": 4},
    "moco v1": {**SMALL, "layers": 1, "norm": None},
    "moco v2": {**SMALL, "norm": None},
    "simclr": {**SMALL, "last_norm": True, "init_std": 0.01},
    "byol": {**SMALL, "hidden_bias": True, "last_bias": False},
    "simsiam": {**SMALL, "layers": 3, "last_norm": True, "last_affine": False},
    "layer norm": {**SMALL, "norm": "ln", "last_norm": True},
}
TEXT = {"vocab_size": 12, "context_length": 5, "width": 8, "num_layers": 1, "num_heads": 2}
OPTIONS = {**{name: METHODS[name][0] for name in SELF_SUPERVISED}, "supervised": {"name": "supervised"},
           "clip": {"name": "clip", "text": TEXT}}


def loss_of(method):
    """The loss of four random images; of captions and classes where the method wants them."""
    rng = np.random.default_rng(0)
    views = [paddle.to_tensor(rng.normal(size=[4, 3, 32, 32]).astype("float32")) for _ in range(method.num_views)]
    ids = rng.integers(1, 12, [4, 5])
    ids[:, -1] = 11                     # the largest id ends a caption
    return method(views, paddle.to_tensor(ids if hasattr(method, "text") else rng.integers(0, 4, [4])))["loss"]


@pytest.mark.parametrize("name", slow_but(["mlp_mixer_nano"], BACKBONES))
def test_every_parameter_learns(name):
    paddle.seed(0)
    encoder = build_backbone(BACKBONES[name])
    pairs = [(name, form) for name in OPTIONS for form in HEADS if form != "linear" or name == "supervised"]
    for method_name, form in pairs:     # a classifier is no projector; a projector may be a classifier
        own = copy.deepcopy(encoder)    # moco_v3 freezes a part of it
        method = build_method(OPTIONS[method_name], own, build_head(HEADS[form], encoder.num_features))
        loss_of(method).backward()
        refuse_without_gradient(method)


@pytest.mark.parametrize("norm", [nn.BatchNorm1D, nn.BatchNorm2D])
def test_paddle_gives_a_scale_without_shift_no_gradient(norm):
    """What the head's own BatchNorm is for; once Paddle mends this, it can go."""
    layer = norm(3, bias_attr=False)
    (layer(paddle.rand([4, 3] if norm is nn.BatchNorm1D else [4, 3, 2, 2])) ** 3).sum().backward()
    assert layer.weight.grad is None


def test_the_scale_of_a_last_norm_has_its_textbook_gradient():
    head = build_head({"name": "mlp", "layers": 1, "out": 3, "norm": "bn", "last_norm": True}, 5)
    scale = head.mlp[-1].weight
    scale.set_value(np.array([0.5, 1.0, 2.0], "float32"))
    rng = np.random.default_rng(0)
    x, weights = (rng.normal(size=size).astype("float32") for size in ([6, 5], [6, 3]))
    y = head(paddle.to_tensor(x))
    (y * paddle.to_tensor(weights)).sum().backward()
    z = x @ head.mlp[0].weight.numpy()
    z = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
    np.testing.assert_allclose(y.numpy(), z * scale.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale.grad.numpy(), (z * weights).sum(0), rtol=1e-4, atol=1e-5)


class Forgetful(nn.Layer):
    """An encoder with a layer that nothing uses."""

    num_features, img_size = 4, None

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, images):
        return self.used(images.mean([2, 3]))


def test_a_parameter_that_cannot_learn_is_named():
    method = build_method("simclr", Forgetful(), build_head({"name": "mlp", "norm": "ln"}, 4))
    loss_of(method).backward()
    with pytest.raises(BadInput, match=r"^2 trainable.*: backbone\.unused\.weight, backbone\.unused\.bias; let"):
        refuse_without_gradient(method)
    for parameter in method.backbone.unused.parameters():
        parameter.trainable = False
    refuse_without_gradient(method)


def test_a_run_ends_at_its_first_step(tiny):
    run = build_run(tiny())
    run.method.head.unused = nn.Linear(2, 2)
    batch = next(iter(run.loader.epoch(0)))
    with pytest.raises(BadInput, match=r"head\.unused\.weight"):
        train_step(run, batch, 0)
    del run.method.head.unused
    train_step(run, batch, 0)
