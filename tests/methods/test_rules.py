"""What each method writes, when, and what it must not touch: EMA, queue, stop-gradient, frozen parts."""
import math

import numpy as np
import paddle
import pytest
from helpers.arrays import state_of
from helpers.definitions import unit
from paddle import nn

from passl_mixer import build_backbone, build_method
from passl_mixer.errors import BadInput
from passl_mixer.heads import build_head
from passl_mixer.methods.ema import ema_update, frozen_copy
from passl_mixer.methods.moco_v3 import patch_projection
from passl_mixer.training.optim import build_optimizer

MLP = {"name": "mlp", "hidden": 6, "out": 5}


class Tiny(nn.Layer):
    """A stand-in encoder: 3 channels, 4x4 pixels, with BatchNorm if asked."""

    def __init__(self, batch_norm=False):
        super().__init__()
        self.num_features = 8
        self.fc = nn.Linear(48, 8)
        self.norm = nn.BatchNorm1D(8) if batch_norm else nn.LayerNorm(8)

    def forward(self, images):
        return nn.functional.gelu(self.norm(self.fc(images.flatten(1))))


def method(cfg, head=None, batch_norm=False, seed=0):
    paddle.seed(seed)
    return build_method(cfg, Tiny(batch_norm), build_head(head or MLP, in_features=8))


def batch(seed, size=4):
    x = np.random.default_rng(seed).normal(size=[2, size, 3, 4, 4]).astype("float32")
    return [paddle.to_tensor(v) for v in x]


def train_step(m, optimiser, views, labels=None):
    for v in views:
        m(v, labels)["loss"].backward()
    optimiser.step(0.1)
    optimiser.clear_grad()
    m.after_step(1, 4)


def test_ema_averages_trainable_parameters_only():
    online = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1D(3))
    online[0].bias.trainable = False
    target = frozen_copy(online)
    assert not any(p.trainable for p in target.parameters())
    before = state_of(target)
    for p in online.parameters():
        p.set_value(paddle.rand(p.shape))
    ema_update(target, online, 0.75)
    now, source = state_of(target), state_of(online)
    for key in ("0.weight", "1.weight", "1.bias"):
        np.testing.assert_allclose(now[key], 0.75 * before[key] + 0.25 * source[key], rtol=1e-6, atol=1e-7)
    for key in ("0.bias", "1._mean", "1._variance"):
        assert np.array_equal(now[key], before[key]), key
    assert all(np.array_equal(state_of(online)[k], source[k]) for k in source)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_moco_step(batch_norm):
    head = MLP if batch_norm else {**MLP, "norm": None}
    m = method({"name": "moco", "queue_size": 16, "momentum": 0.9}, head=head, batch_norm=batch_norm)
    before = state_of(m)
    for ours, twin in (("backbone.", "key_backbone."), ("head.", "key_head.")):
        same = [k for k in before if k.startswith(ours)]
        assert same
        assert all(np.array_equal(before[k], before[twin + k[len(ours):]]) for k in same)
    names = [n for n, _ in m.trainable_parameters()]
    assert names
    assert all(n.startswith(("backbone.", "head.")) for n in names)
    np.testing.assert_allclose(np.linalg.norm(before["queue"], axis=1), 1.0, rtol=1e-5)
    optimiser = build_optimizer({"name": "sgd"}, m.trainable_parameters())

    views = [batch(0), batch(1)]  # two micro-batches
    for v in views:
        m(v)["loss"].backward()
    untouched = ("queue", "queue_pointer", "key_backbone.fc.weight", "key_head.mlp.0.weight")
    assert all(np.array_equal(state_of(m)[k], before[k]) for k in untouched)
    assert all(p.grad is None for n, p in m.named_parameters() if n.startswith("key_"))
    optimiser.step(0.1)
    m.after_step(1, 2)
    now = state_of(m)
    for key in ("backbone.fc.weight", "head.mlp.0.weight"):
        assert not np.array_equal(now[key], before[key])
        np.testing.assert_allclose(now["key_" + key], 0.9 * before["key_" + key] + 0.1 * now[key], rtol=1e-5,
                                   atol=1e-6)
    assert np.array_equal(now["queue"][8:], before["queue"][8:])
    assert int(now["queue_pointer"][0]) == 8
    if not batch_norm:  # keys of the encoder before it moved, in order
        twin = method({"name": "moco", "queue_size": 16}, head=head)
        keys = np.concatenate([twin.key_head(twin.key_backbone(v[1])).numpy() for v in views])
        np.testing.assert_allclose(now["queue"][:8], unit(keys), rtol=1e-4, atol=1e-5)


def test_moco_queue_is_a_ring_and_evaluation_leaves_it_alone():
    m = method({"name": "moco", "queue_size": 8})
    optimiser = build_optimizer({"name": "sgd"}, m.trainable_parameters())
    train_step(m, optimiser, [batch(0)])
    first = state_of(m)["queue"][:4]
    train_step(m, optimiser, [batch(1)])
    assert int(m.queue_pointer[0]) == 0
    assert np.array_equal(state_of(m)["queue"][:4], first)
    train_step(m, optimiser, [batch(2)])
    assert not np.array_equal(state_of(m)["queue"][:4], first)
    before = state_of(m)["queue"]
    m.eval()
    m(batch(3))
    m.after_step(1, 2)
    assert np.array_equal(state_of(m)["queue"], before)


def test_moco_keeps_its_own_batch_norm_statistics():
    m = method({"name": "moco", "queue_size": 8, "momentum": 0.5, "bn_splits": 1}, batch_norm=True)
    view1, view2 = batch(0)
    m([view1, view2])
    # Both encoders are equal so far.
    hidden = [m.backbone.fc(v.flatten(1)).numpy().mean(0) for v in (view1, view2)]
    m.after_step(1, 2)
    np.testing.assert_allclose(m.backbone.norm._mean.numpy(), 0.1 * hidden[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(m.key_backbone.norm._mean.numpy(), 0.1 * hidden[1], rtol=1e-4, atol=1e-6)


def test_moco_groups_of_batch_norm():
    m = method({"name": "moco", "queue_size": 8, "bn_splits": 2}, batch_norm=True)
    images = batch(0, size=6)[1]
    paddle.seed(5)
    order = paddle.randperm(6).numpy()
    expected = np.zeros([6, 5], "float32")
    twin = frozen_copy(nn.Sequential(m.key_backbone, m.key_head))
    for group in np.split(order, 2):
        expected[group] = twin(images.index_select(paddle.to_tensor(group))).numpy()
    paddle.seed(5)
    keys = m._keys(images, 2).numpy()
    np.testing.assert_allclose(keys, unit(expected), rtol=1e-4, atol=1e-5)
    auto = method({"name": "moco", "queue_size": 8}, batch_norm=True)
    assert [auto._splits(b) for b in (2, 4, 16, 64, 12, 7)] == [1, 2, 8, 8, 6, 1]
    assert method({"name": "moco", "queue_size": 8}, head={"name": "mlp", "norm": None})._splits(64) == 1
    with pytest.raises(BadInput, match="bn_splits 2 does not cut a batch of 5"):
        m(batch(0, size=5))


def test_moco_queries_are_grouped_too():
    m = method({"name": "moco", "queue_size": 8, "bn_splits": 2}, batch_norm=True)
    view1, view2 = batch(0)
    m([view1, view2])
    halves = [m.backbone.fc(part.flatten(1)).numpy().mean(0) for part in view1.chunk(2)]
    expected = 0.9 * 0.1 * halves[0] + 0.1 * halves[1]
    np.testing.assert_allclose(m.backbone.norm._mean.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "twins", "step", "total"), [
    ("byol", "target_", 2, 8), ("moco_v3", "key_", 2, 12)])      # of moco_v3 the next step is a quarter of the way
def test_a_step_moves_the_average_by_its_formula(name, twins, step, total):
    m = method({"name": name, "momentum": 0.9}, batch_norm=True)
    before = state_of(m)
    for ours in ("backbone.", "head."):
        same = [k for k in before if k.startswith(ours)]
        assert same
        assert name == "byol" or all(np.array_equal(before[k], before[twins + k]) for k in same)
    assert {n.split(".")[0] for n, _ in m.trainable_parameters()} == {"backbone", "head", "predictor"}
    optimiser = build_optimizer({"name": "sgd"}, m.trainable_parameters())
    for seed in (0, 1):         # two micro-batches
        m(batch(seed))["loss"].backward()
    assert all(p.grad is not None for _, p in m.trainable_parameters())
    assert all(p.grad is None for n, p in m.named_parameters() if n.startswith(twins))
    assert np.array_equal(state_of(m)[f"{twins}backbone.fc.weight"], before[f"{twins}backbone.fc.weight"])
    optimiser.step(0.1)
    m.after_step(step, total)
    now, tau = state_of(m), 1 - 0.1 * (math.cos(math.pi / 4) + 1) / 2
    for key in ("backbone.fc.weight", "head.mlp.0.weight"):
        assert not np.array_equal(now[key], before[key])
        np.testing.assert_allclose(now[twins + key], tau * before[twins + key] + (1 - tau) * now[key], rtol=1e-5,
                                   atol=1e-6)


def test_byol_loss_is_symmetric_and_its_target_sees_batch_statistics():
    m = method({"name": "byol"}, batch_norm=True)
    views = batch(0)
    loss = float(m(views)["loss"])
    assert math.isclose(loss, float(m(views[::-1])["loss"]), rel_tol=1e-5)
    first = state_of(m)["target_backbone.norm._mean"]
    m(views)
    assert not np.array_equal(state_of(m)["target_backbone.norm._mean"], first)
    m.target_backbone.norm._mean.set_value(paddle.full([8], 100.0))  # train mode: not used
    assert math.isclose(loss, float(m(views)["loss"]), rel_tol=1e-5)


def test_byol_predicts_the_other_view():
    m = method({"name": "byol"}, head={**MLP, "norm": "ln"})
    views = batch(0)
    p1, p2 = (unit(m.predictor(m.head(m.backbone(v))).numpy()) for v in views)
    z1, z2 = (unit(m.target_head(m.target_backbone(v)).numpy()) for v in views)
    expected = (4 - 2 * (p1 * z2).sum(1) - 2 * (p2 * z1).sum(1)).mean()
    np.testing.assert_allclose(float(m(views)["loss"]), expected, rtol=1e-5)


def test_simsiam_step():
    m = method({"name": "simsiam"}, batch_norm=True)
    before = state_of(m)
    assert {n.split(".")[0] for n in before} == {"backbone", "head", "predictor"}
    optimiser = build_optimizer({"name": "sgd"}, m.trainable_parameters())
    train_step(m, optimiser, [batch(0), batch(1)])
    now = state_of(m)
    for key in ("backbone.fc.weight", "head.mlp.0.weight", "predictor.mlp.0.weight"):
        assert not np.array_equal(now[key], before[key])
    m.after_step(1, 2)
    assert all(np.array_equal(state_of(m)[k], now[k]) for k in now)


def test_simsiam_stops_the_gradient_of_the_embeddings():
    m = method({"name": "simsiam"}, head={**MLP, "norm": "ln"})
    views = batch(0)
    fixed = [unit(m.head(m.backbone(v)).numpy()) for v in views]
    m(views)["loss"].backward()
    found = {n: p.grad.numpy().copy() for n, p in m.trainable_parameters()}
    for _, p in m.trainable_parameters():
        p.clear_gradient(False)
    p1, p2 = (nn.functional.normalize(m.predictor(m.head(m.backbone(v))), axis=1) for v in views)
    expected = -0.5 * ((p1 * paddle.to_tensor(fixed[1])).sum(1) + (p2 * paddle.to_tensor(fixed[0])).sum(1)).mean()
    expected.backward()
    np.testing.assert_allclose(float(m(views)["loss"]), float(expected), rtol=1e-5)
    for name, p in m.trainable_parameters():
        np.testing.assert_allclose(found[name], p.grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_moco_v3_queries_find_the_keys_of_the_other_view():
    m = method({"name": "moco_v3", "temperature": 0.5}, head={**MLP, "norm": "ln"})
    views, expected = batch(0), 0.0
    q = [unit(m.predictor(m.head(m.backbone(v))).numpy().astype("float64")) for v in views]
    k = [unit(m.key_head(m.key_backbone(v)).numpy().astype("float64")) for v in views]
    for logits in (q[0] @ k[1].T / 0.5, q[1] @ k[0].T / 0.5):
        expected -= np.mean(np.diag(logits) - np.log(np.exp(logits).sum(1)))
    loss = float(m(views)["loss"])
    np.testing.assert_allclose(loss, 2 * 0.5 * expected, rtol=1e-5)
    assert math.isclose(loss, float(m(views[::-1])["loss"]), rel_tol=1e-5)


MIXER = {"name": "MlpMixer", "img_size": 4, "patch_size": 2, "embed_dim": 8, "num_blocks": 1}


@pytest.mark.parametrize("freeze", [True, False])
def test_moco_v3_freezes_the_patch_projection(freeze):
    paddle.seed(0)
    m = build_method({"backbone": MIXER, "head": MLP, "method": {"name": "moco_v3", "freeze_stem": freeze}})
    before, names = state_of(m), [n for n, _ in m.trainable_parameters()]
    assert ("backbone.stem.weight" in names, "backbone.stem.bias" in names) == (not freeze, not freeze)
    optimiser = build_optimizer({"name": "adamw", "weight_decay": 0.1}, m.trainable_parameters())
    train_step(m, optimiser, [batch(0), batch(1)])
    now = state_of(m)
    for part in ("backbone.stem.weight", "backbone.stem.bias", "key_backbone.stem.weight"):
        assert np.array_equal(now[part], before[part]) == freeze, part
    moved = ("backbone.norm.weight", "backbone.blocks.0.channel_mlp.fc1.weight", "head.mlp.0.weight")
    assert not any(np.array_equal(now[k], before[k]) for k in moved)
    m.backbone.stem.weight.set_value(paddle.full_like(m.backbone.stem.weight, 0.5))  # as train.init_from does
    assert np.array_equal(m.key_backbone.stem.weight.numpy(), m.backbone.stem.weight.numpy()) == freeze


@pytest.mark.parametrize(("name", "has_patches"), [
    ("mlp_mixer_nano", True), ("resmlp_nano", True), ("gmlp_nano", True), ("vit_nano", True),
    ("s2_mlp_v1_nano", True), ("vip_nano", True), ("as_mlp_nano", True), ("conv_mixer_nano", True), ("swin_nano", True),
    ("conv_mlp_nano", False), ("cycle_mlp_nano", False), ("hire_mlp_nano", False), ("wave_mlp_nano", False),
    ("s2_mlp_v2_nano", False), ("resnet18", False)])
def test_which_backbones_have_a_patch_projection(name, has_patches):
    assert (patch_projection(build_backbone(name)) is not None) == has_patches


HIDDEN, LAST = ["Linear", "BatchNorm1D", "ReLU"], ["Linear"]


@pytest.mark.parametrize(("name", "head", "sizes", "layers", "biases"), [
    ("byol", MLP, (5, 6, 5, "bn"), [*HIDDEN, *LAST], None),
    ("byol", {**MLP, "norm": "ln"}, (5, 6, 5, "ln"), None, None),
    ("simsiam", {**MLP, "out": 20}, (20, 5, 20, "bn"), [*HIDDEN, *LAST], [False, True]),
    ("moco_v3", MLP, (5, 6, 5, "bn"), [*HIDDEN, *LAST, "BatchNorm1D"], None),
    ("moco_v3", {**MLP, "norm": None}, (5, 6, 5, None), ["Linear", "ReLU", "Linear"], None)])
def test_the_predictor_follows_the_projector(name, head, sizes, layers, biases):
    predictor = method({"name": name}, head=head).predictor
    assert (predictor.in_features, predictor.hidden, predictor.out_features, predictor.norm) == sizes
    kinds = [type(layer).__name__ for layer in predictor.mlp]
    assert layers is None or kinds == layers
    assert biases is None or [p.bias is not None for p in predictor.mlp if isinstance(p, nn.Linear)] == biases
    if kinds[-1] == "BatchNorm1D":
        assert (predictor.mlp[-1].weight, predictor.mlp[-1].bias) == (None, None)


@pytest.mark.parametrize(("cfg", "sizes"), [
    ({"name": "byol", "predictor": {"name": "mlp", "hidden": 3, "norm": "ln"}}, (3, 5, "ln")),
    ({"name": "simsiam", "predictor": {"norm": "ln"}}, (1, 5, "ln"))])
def test_the_predictor_is_as_it_is_asked_for(cfg, sizes):
    chosen = method(cfg).predictor
    assert (chosen.hidden, chosen.out_features, chosen.norm) == sizes


def test_simclr_sees_both_views_in_one_batch():
    m = method({"name": "simclr"}, batch_norm=True)
    views = batch(0)
    m(views)
    hidden = m.backbone.fc(paddle.concat(views).flatten(1)).numpy()
    np.testing.assert_allclose(m.backbone.norm._mean.numpy(), 0.1 * hidden.mean(0), rtol=1e-4, atol=1e-6)


def test_linear_probe_freezes_the_backbone():
    m = method({"name": "supervised", "freeze_backbone": True}, head={"name": "linear", "num_classes": 3},
               batch_norm=True)
    m.train()
    assert m.training
    assert m.head.training
    assert not any(part.training for part in m.backbone.sublayers(include_self=True))
    assert [n for n, _ in m.trainable_parameters()] == ["head.fc.weight", "head.fc.bias"]
    before = state_of(m)
    optimiser = build_optimizer({"name": "sgd"}, m.trainable_parameters())
    train_step(m, optimiser, [batch(0)[:1]], labels=paddle.to_tensor([0, 1, 2, 0]))
    now = state_of(m)
    assert all(np.array_equal(now[k], before[k]) == k.startswith("backbone.") for k in before)


def test_mixup_is_its_formula_and_off_in_evaluation():
    m = method({"name": "supervised", "mixup_alpha": 0.5, "label_smoothing": 0.1},
               head={"name": "linear", "num_classes": 3})
    m.head.fc.weight.set_value(paddle.rand([8, 3]))
    images, labels = batch(0)[0], paddle.to_tensor([0, 1, 2, 0])
    paddle.seed(9)
    order = paddle.randperm(4).numpy()
    lam = float(m.mixup_table.numpy()[paddle.randint(0, 4096, [1]).numpy()[0]])
    mixed = lam * images.numpy() + (1 - lam) * images.numpy()[order]
    targets = np.eye(3)[labels.numpy()] * 0.9 + 0.1 / 3
    targets = lam * targets + (1 - lam) * targets[order]
    scores = m.head(m.backbone(paddle.to_tensor(mixed.astype("float32")))).numpy().astype("float64")
    expected = -(targets * (scores - np.log(np.exp(scores).sum(1, keepdims=True)))).sum(1).mean()
    majority = labels.numpy() if lam >= 0.5 else labels.numpy()[order]
    paddle.seed(9)
    result = m([images], labels)
    np.testing.assert_allclose(float(result["loss"]), expected, rtol=1e-5)
    assert float(result["accuracy"]) == (scores.argmax(1) == majority).mean()
    assert "mixup_table" not in m.state_dict()
    m.eval()
    assert float(m([images], labels)["loss"]) == float(m([images], labels)["loss"])


def test_state_of_moco_goes_on_bitwise():
    cfg = {"name": "moco", "queue_size": 16}
    losses = []
    m = method(cfg, batch_norm=True)
    for step in range(4):
        if step == 2:
            saved = state_of(m)
            m = method(cfg, batch_norm=True, seed=77)
            m.set_state_dict({k: paddle.to_tensor(v) for k, v in saved.items()})
        paddle.seed(step)
        losses.append(float(m(batch(step))["loss"]))
        m.after_step(step, 4)
    straight = method(cfg, batch_norm=True)
    for step in range(4):
        paddle.seed(step)
        assert float(straight(batch(step))["loss"]) == losses[step]
        straight.after_step(step, 4)


@pytest.mark.parametrize(("cfg", "size", "words"), [
    ({"name": "simclr"}, 1, "no negatives"),
    ({"name": "byol"}, 1, "too small"),
    ({"name": "simsiam"}, 1, "too small"),
    ({"name": "moco_v3"}, 1, "no negatives"),
    ({"name": "moco", "queue_size": 16}, 1, "too small"),
    ({"name": "moco", "queue_size": 100}, 32, "queue_size 100 is not a multiple of the batch of 32.*to 96"),
    ({"name": "moco", "queue_size": 8}, 32, "to 32"),
])
def test_batches_that_cannot_work(cfg, size, words):
    with pytest.raises(BadInput, match=words):
        method(cfg).check_batch(size)
    method(cfg).check_batch(2 if cfg.get("queue_size") != 100 else 50)


@pytest.mark.parametrize(("cfg", "words"), [
    ({"name": "simclr", "temperature": 0}, "temperature must be positive"),
    ({"name": "simclr", "temprature": 0.1}, "did you mean 'temperature'"),
    ({"name": "moco", "momentum": 1.0}, r"momentum in \[0, 1\)"),
    ({"name": "moco", "queue_size": 0}, "queue_size and bn_splits >= 1"),
    ({"name": "byol", "momentum": 1.5}, r"momentum must be in \[0, 1\]"),
    ({"name": "simsiam", "momentum": 0.9}, "no option 'momentum'"),
    ({"name": "moco_v3", "momentum": 1.5}, r"momentum in \[0, 1\]"),
    ({"name": "moco_v3", "temperature": 0}, "temperature > 0"),
    ({"name": "moco_v3", "freeze_stm": True}, "did you mean 'freeze_stem'"),
    ({"name": "supervised", "label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
    ({"name": "supervised", "mixup_alpha": -0.1}, "mixup_alpha must be >= 0"),
    ({"name": "simclar"}, "did you mean 'simclr'"),
    *(({"name": name, "predictor": {"out": 4}}, f"{name}'s predictor has out 4, the projector 5")
      for name in ("byol", "simsiam", "moco_v3")),
    ({"name": "byol", "predictor": {"hiden": 4}}, "did you mean 'hidden'"),
])
def test_bad_options(cfg, words):
    with pytest.raises(BadInput, match=words):
        method(cfg)


def test_bad_parts():
    classifier = {"name": "linear", "num_classes": 3}
    for name in ("simclr", "moco", "byol", "simsiam", "moco_v3"):
        with pytest.raises(BadInput, match=f"'{name}' needs a projector"):
            method(name, head=classifier)
    with pytest.raises(BadInput, match="needs labels"):
        method("supervised", head=classifier)(batch(0), None)
    with pytest.raises(BadInput, match="no key 'heads'; did you mean 'head'"):
        build_method({"backbone": "mlp_mixer_nano", "heads": "mlp", "method": "simclr"})
    with pytest.raises(BadInput, match="needs 'method'"):
        build_method({"backbone": "mlp_mixer_nano", "head": "mlp"})
    with pytest.raises(BadInput, match="both backbone and head"):
        build_method("simclr", Tiny())
