"""Gradients in loops of users: ``paddle.grad`` of every family, saliency, gradient caching, penalties, hooks."""
import copy
import gc

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers.backbones import NANO, SMALL
from helpers.gradients import project
from helpers.marks import slow_but
from paddle import nn

from passl_mixer import build_backbone
from passl_mixer.layers.batch_norm import synchronise
from passl_mixer.layers.recompute import set_recompute
from passl_mixer.ops import gradients

CASES = [*((name, {}, 32) for name in NANO), ("ResNet", SMALL["ResNet"], 16)]


def network(name: str, options: dict, training: bool, recompute: bool = False):
    paddle.seed(1)
    net = build_backbone({"name": name, **options})
    net.train() if training else net.eval()
    set_recompute(net, recompute)
    return net


def images_of(count: int, side: int):
    return paddle.to_tensor(np.random.default_rng(2).standard_normal((count, 3, side, side)).astype("float32"),
                            stop_gradient=False)


def projected(net, x):
    """A random projection of the features; random operations draw the same every time."""
    paddle.seed(5)
    return project(net(x), 3)


def trainable(net) -> list:
    return [p for p in net.parameters() if not p.stop_gradient]


def backward_gradients(net, x) -> list:
    """What ``backward()`` leaves on the images and on the parameters; removed from there."""
    tensors = [x, *trainable(net)]
    projected(net, x).backward()
    found = [t.grad.numpy() for t in tensors]
    for t in tensors:
        t.clear_gradient(False)
    return found


def same(found, wanted):
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted):
        np.testing.assert_array_equal(one.numpy(), other)


def check_parts(net, x):
    """``paddle.grad`` of images, of parameters, of both: bit for bit what ``backward()`` leaves."""
    wanted, parameters = backward_gradients(net, x), trainable(net)
    middle = len(parameters) // 2
    assert np.abs(wanted[0]).max() > 0
    same(paddle.grad(projected(net, x), x), wanted[:1])
    same(paddle.grad(projected(net, x), parameters), wanted[1:])
    same(paddle.grad(projected(net, x), [x, parameters[middle]]), [wanted[0], wanted[1 + middle]])


@pytest.mark.parametrize("training", slow_but([True], [True, False]))
@pytest.mark.parametrize(("name", "options", "side"), CASES, ids=[case[0] for case in CASES])
def test_every_family(name, options, side, training):
    check_parts(network(name, options, training), images_of(3, side))


@pytest.mark.parametrize("name", ["MlpMixer", "ConvMixer", "ASMLP", "Swin"])
def test_blocks_computed_again(name):
    net = network(name, SMALL[name], True, recompute=True)
    check_parts(net, images_of(3, 16))
    again = backward_gradients(net, images_of(3, 16))
    set_recompute(net, False)
    for one, other in zip(again, backward_gradients(net, images_of(3, 16))):
        np.testing.assert_array_equal(one, other)


def test_parameters_of_recomputed_blocks_are_themselves_again_and_their_hooks_fire_once():
    net = network("MlpMixer", SMALL["MlpMixer"], True, recompute=True)
    parameters, seen = trainable(net), []
    net.blocks[0].parameters()[0].register_hook(seen.append)
    projected(net, images_of(2, 16)).backward()
    assert len(seen) == 1
    assert all(one is other for one, other in zip(parameters, trainable(net)))


def test_recomputed_blocks_say_that_they_have_no_second_derivative():
    net, x = network("MlpMixer", SMALL["MlpMixer"], True, recompute=True), images_of(2, 16)
    with pytest.raises(Exception, match=r"set_recompute\(backbone, False\)"):
        paddle.grad(projected(net, x), x, create_graph=True)


@pytest.mark.parametrize("training", [True, False])
def test_synchronised_batch_norm_on_one_process(training):
    net = network("ConvMixer", SMALL["ConvMixer"], training)
    synchronise(net)
    check_parts(net, images_of(3, 16))


def penalty(net, x):
    (slope,) = paddle.grad(projected(net, x), x, create_graph=True)
    return slope.square().sum()


def penalty_gradients(net, x, reach: float) -> list:
    """The penalty's gradients by central differences of first ones: twice the second derivatives along the slope."""
    slope = backward_gradients(net, x)[0]
    step, found = reach / np.abs(slope).max(), []
    for sign in (1, -1):
        moved = paddle.to_tensor(x.numpy() + sign * step * slope, stop_gradient=False)
        found.append(backward_gradients(net, moved))
    return [(plus - minus) / step for plus, minus in zip(*found)]


@pytest.mark.parametrize(("name", "training"), slow_but(lambda case: case[1] and case[0] != "ResNet", [
    (name, training) for name in SMALL for training in (True, False) if training or name != "ResNet"]))
def test_gradient_penalty(name, training):
    """Compared with float64, which Paddle's own operators compute, by first derivatives only. So short a way that no
    ReLU turns.
    """
    net, x = network(name, SMALL[name], training), images_of(4, 16)
    double = copy.deepcopy(net)
    double.to(dtype="float64")
    wanted = penalty_gradients(double, paddle.to_tensor(x.numpy().astype("float64"), stop_gradient=False), 1e-9)
    penalty(net, x).backward()
    found = [t.grad for t in [x, *trainable(net)]]
    largest = max(np.abs(w).max() for w in wanted)
    assert largest > 0
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(0.0 if one is None else one.numpy(), other, rtol=0,
                                   atol=1e-3 * np.abs(other).max() + 1e-5 * largest)


@pytest.mark.slow
def test_a_critic_learns_a_slope_of_one():
    """WGAN-GP's penalty (Gulrajani et al. 2017, arXiv:1704.00028, equation 3) goes down by its own gradient."""
    net, x = network("MlpMixer", {**SMALL["MlpMixer"], "drop_path_rate": 0.0}, True), images_of(8, 16)
    critic = nn.Sequential(net, nn.Linear(net.num_features, 1))
    optimiser = paddle.optimizer.Adam(1e-2, parameters=critic.parameters())
    seen = []
    for _ in range(30):
        (slope,) = paddle.grad(10.0 * critic(x).sum(), x, create_graph=True)
        loss = ((slope.square().sum([1, 2, 3]) + 1e-12).sqrt() - 1.0).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.clear_grad()
        seen.append(float(loss))
    assert seen[-1] < 0.3 * seen[0]


@pytest.mark.parametrize("name", slow_but(["MlpMixer"], ["MlpMixer", "ConvMixer", "CycleMLP", "GMLP"]))
def test_no_activation_outlives_its_graph(name):
    """Without Python's collector: nothing that is kept for a gradient is part of a circle."""
    net, x = network(name, SMALL[name], True), images_of(2, 16)

    def kept() -> int:
        return sum(isinstance(thing, (gradients.Call, gradients.Kept)) for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        start, loss = kept(), projected(net, x)
        assert kept() > start
        del loss
        counts = [kept()]
        projected(net, x).backward()
        counts.append(kept())
        for twice in (False, True):
            paddle.grad(projected(net, x), x, create_graph=twice)
            counts.append(kept())
    finally:
        gc.enable()
    assert counts == [start] * 4


def test_saliency():
    """The slope of one feature with respect to the images is its change along any direction."""
    net, x = network("MlpMixer", SMALL["MlpMixer"], False), images_of(2, 16)
    (slope,) = paddle.grad(net(x)[:, 3].sum(), x)
    direction = np.random.default_rng(4).standard_normal(x.shape)
    double = copy.deepcopy(net)
    double.to(dtype="float64")
    with paddle.no_grad():
        ends = [double(paddle.to_tensor(x.numpy() + sign * 1e-6 * direction))[:, 3].numpy() for sign in (1, -1)]
    changes = (slope.numpy() * direction).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(changes, (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-6)


def test_gradient_caching():
    """Gao et al. 2021, arXiv:2101.06983: a batch's contrastive gradient by two passes over parts of it."""
    net = network("MlpMixer", SMALL["MlpMixer"], False)
    batch = np.random.default_rng(2).standard_normal((2, 8, 3, 16, 16)).astype("float32")

    def loss(one, other):
        return F.cross_entropy(paddle.matmul(one, other, transpose_y=True), paddle.arange(8))

    loss(*(net(paddle.to_tensor(view)) for view in batch)).backward()
    wanted = [p.grad.numpy() for p in trainable(net)]
    net.clear_gradients()
    parts = [paddle.to_tensor(view[start:start + 2]) for view in batch for start in range(0, 8, 2)]
    with paddle.no_grad():
        embeddings = [net(part) for part in parts]
    for e in embeddings:
        e.stop_gradient = False
    caches = paddle.grad(loss(paddle.concat(embeddings[:4]), paddle.concat(embeddings[4:])), embeddings)
    for part, cache in zip(parts, caches):
        (net(part) * cache).sum().backward()
    for p, want in zip(trainable(net), wanted):
        np.testing.assert_allclose(p.grad.numpy(), want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def test_hooks_of_parameters_and_of_activations_fire():
    net, x, seen = network("MlpMixer", SMALL["MlpMixer"], True), images_of(2, 16), {}
    kept = []
    net.blocks[1].register_forward_pre_hook(lambda layer, inputs: kept.append(inputs[0]))
    parameters = trainable(net)
    for i, p in enumerate(parameters):
        p.register_hook(lambda g, i=i: seen.update({i: g.numpy()}))
    loss = projected(net, x)
    kept[0].register_hook(lambda g: g * 2.0)
    doubled = paddle.grad(loss, x, retain_graph=True)[0].numpy()
    loss.backward()
    assert len(seen) == len(parameters)
    same([x.grad], [doubled])
    for i, p in enumerate(parameters):
        np.testing.assert_array_equal(seen[i], p.grad.numpy())
    x.clear_gradient(False)
    projected(net, x).backward()            # without the hook
    np.testing.assert_allclose(x.grad.numpy() * 2.0, doubled, rtol=1e-5, atol=1e-6)


def test_one_graph_passed_twice():
    net, x = network("CycleMLP", SMALL["CycleMLP"], True), images_of(3, 16)
    wanted, loss = backward_gradients(net, x), projected(net, x)
    inputs = [x, *trainable(net)]
    same(paddle.grad(loss, x, retain_graph=True), wanted[:1])
    same(paddle.grad(loss, inputs, retain_graph=True), wanted)
    same(paddle.grad(loss * 4.0, inputs, retain_graph=True), [4.0 * w for w in wanted])     # exact in float32
    loss.backward()
    projected(net, x).backward()
    same([t.grad for t in inputs], [2.0 * w for w in wanted])
