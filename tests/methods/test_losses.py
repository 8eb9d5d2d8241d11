"""Each loss against a slow loop over its paper's equation, its gradient against differences of the loop."""
import math

import numpy as np
import paddle
import pytest
from helpers.definitions import cosine, unit
from helpers.gradients import differences

from passl_mixer.errors import BadInput
from passl_mixer.methods.byol import regression_loss, target_momentum
from passl_mixer.methods.clip import clip_loss
from passl_mixer.methods.moco import info_nce
from passl_mixer.methods.moco_v3 import contrastive_loss
from passl_mixer.methods.simclr import nt_xent
from passl_mixer.methods.simsiam import negative_cosine
from passl_mixer.methods.supervised import smooth_one_hot, soft_cross_entropy
from passl_mixer.metrics import feature_std, top_k_accuracy


def slow_nt_xent(z1, z2, temperature):
    z, n = np.concatenate([z1, z2]), len(z1)
    total = 0.0
    for i in range(2 * n):
        j = i + n if i < n else i - n
        others = sum(math.exp(cosine(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(cosine(z[i], z[j]) / temperature) / others)
    return total / (2 * n)


def slow_info_nce(query, key, queue, temperature):
    total = 0.0
    for q, k in zip(query, key):
        positive = math.exp(cosine(q, k) / temperature)
        negatives = sum(math.exp(q @ row / math.sqrt(q @ q) / temperature) for row in queue)
        total -= math.log(positive / (positive + negatives))
    return total / len(query)


def slow_regression(p1, z2, p2, z1):
    return sum(4 - 2 * cosine(a, b) - 2 * cosine(c, d) for a, b, c, d in zip(p1, z2, p2, z1)) / len(p1)


def slow_negative_cosine(p1, z2, p2, z1):
    return sum(-(cosine(a, b) + cosine(c, d)) / 2 for a, b, c, d in zip(p1, z2, p2, z1)) / len(p1)


def slow_contrastive(q, k, temperature):
    total = 0.0
    for i in range(len(q)):
        among = sum(math.exp(cosine(q[i], row) / temperature) for row in k)
        total -= math.log(math.exp(cosine(q[i], k[i]) / temperature) / among)
    return 2 * temperature * total / len(q)


def slow_soft_cross_entropy(scores, targets):
    total = 0.0
    for s, t in zip(scores, targets):
        total -= sum(t[c] * (s[c] - math.log(sum(math.exp(v) for v in s))) for c in range(len(s)))
    return total / len(scores)


def draw(*shapes):
    rng = np.random.default_rng(3)
    return [rng.normal(size=s) for s in shapes]


def cases():
    four = [(5, 4)] * 4
    query, key, queue = draw((5, 4), (5, 4), (7, 4))
    scores, weights = draw((5, 4), (5, 4))
    return {
        "nt_xent": (nt_xent, slow_nt_xent, draw((5, 4), (5, 4)), (0.3,), (0, 1)),
        "nt_xent_cold": (nt_xent, slow_nt_xent, draw((5, 4), (5, 4)), (0.07,), (0, 1)),
        "info_nce": (info_nce, slow_info_nce, [query, key, unit(queue)], (0.2,), (0, 1)),
        "regression": (regression_loss, slow_regression, draw(*four), (), (0, 1, 2, 3)),
        "negative_cosine": (negative_cosine, slow_negative_cosine, draw(*four), (), (0, 1, 2, 3)),
        "contrastive": (contrastive_loss, slow_contrastive, draw((5, 4), (5, 4)), (0.2,), (0,)),
        "contrastive_warm": (contrastive_loss, slow_contrastive, draw((5, 4), (5, 4)), (1.0,), (0,)),
        "soft_cross_entropy": (soft_cross_entropy, slow_soft_cross_entropy,
                               [scores, np.exp(weights) / np.exp(weights).sum(1, keepdims=True)], (), (0,)),
    }


@pytest.mark.parametrize("name", cases())
def test_loss_and_gradient(name):
    fast, slow, arrays, rest, differentiable = cases()[name]
    tensors = [paddle.to_tensor(a.astype("float32"), stop_gradient=False) for a in arrays]
    loss = fast(*tensors, *rest)
    assert loss.dtype == paddle.float32
    assert list(loss.shape) == []
    np.testing.assert_allclose(float(loss), slow(*arrays, *rest), rtol=2e-5)
    loss.backward()
    for which in differentiable:
        expected = differences(lambda *moved: slow(*moved, *rest), arrays, which)
        np.testing.assert_allclose(tensors[which].grad.numpy(), expected, rtol=1e-3, atol=2e-5)


def test_known_values():
    same = paddle.ones([6, 3])
    np.testing.assert_allclose(float(nt_xent(same, same, 0.1)), math.log(11), rtol=1e-5)
    queue = paddle.full([9, 3], 3 ** -0.5)
    np.testing.assert_allclose(float(info_nce(same, same, queue, 0.07)), math.log(10), rtol=1e-5)
    np.testing.assert_allclose(float(regression_loss(same, 2 * same, same, 5 * same)), 0.0, atol=1e-5)
    np.testing.assert_allclose(float(regression_loss(same, -same, same, -same)), 8.0, rtol=1e-5)
    np.testing.assert_allclose(float(negative_cosine(same, 2 * same, same, 5 * same)), -1.0, rtol=1e-5)
    np.testing.assert_allclose(float(contrastive_loss(same, 2 * same, 0.3)), 0.6 * math.log(6), rtol=1e-5)


def test_keys_of_contrastive_loss_carry_no_gradient():
    q, k = (paddle.to_tensor(a.astype("float32"), stop_gradient=False) for a in draw((5, 4), (5, 4)))
    contrastive_loss(q, k, 0.2).backward()
    assert k.grad is None
    assert np.abs(q.grad.numpy()).max() > 0


def test_low_precision_inputs_give_float32_losses():
    arrays = draw((4, 8), (4, 8), (6, 8))
    z1, z2, queue = (paddle.to_tensor(a.astype("float32")).astype("bfloat16") for a in arrays)
    for loss in (nt_xent(z1, z2, 0.1), info_nce(z1, z2, queue, 0.1), regression_loss(z1, z2, z2, z1),
                 negative_cosine(z1, z2, z2, z1), contrastive_loss(z1, z2, 0.1)):
        assert loss.dtype == paddle.float32
        assert np.isfinite(float(loss))


@pytest.mark.parametrize("call", [
    lambda a, b: nt_xent(a, b, 0.1),
    lambda a, b: nt_xent(a, a, 0.0),
    lambda a, b: nt_xent(a, a, -1.0),
    lambda a, b: nt_xent(a, a, float("nan")),
    lambda a, b: nt_xent(a[0], a[0], 0.1),
    lambda a, b: info_nce(a, b, a, 0.1),
    lambda a, b: info_nce(a, a, paddle.ones([5, 9]), 0.1),
    lambda a, b: info_nce(a, a, a, 0.0),
    lambda a, b: regression_loss(a, a, b, b),
    lambda a, b: negative_cosine(a, a, b, b),
    lambda a, b: contrastive_loss(a, b, 0.1),
    lambda a, b: contrastive_loss(a[0], a[0], 0.1),
    lambda a, b: contrastive_loss(a, a, 0.0),
    lambda a, b: soft_cross_entropy(a, b),
    lambda a, b: soft_cross_entropy(a[None], a[None]),
])
def test_wrong_shapes_and_temperatures(call):
    with pytest.raises(BadInput, match="got"):
        call(paddle.ones([4, 3]), paddle.ones([3, 3]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("rows", [8, 300])
def test_embeddings_that_are_not_finite_are_seen(rows, bad):
    """Paddle's CPU kernel of the cross entropy takes scores that are NaN for equal ones and says log(N)."""
    rng = np.random.default_rng(0)
    good, other, queue = (paddle.to_tensor(rng.standard_normal((rows, 16)).astype("float32")) for _ in range(3))
    broken = good.clone()
    broken[3, 1] = bad
    for first, second in ((broken, other), (other, broken)):
        found = [nt_xent(first, second, 0.1), info_nce(first, second, queue, 0.1), contrastive_loss(first, second, 0.1),
                 clip_loss(first, second, 10.0), regression_loss(first, second, good, good),
                 negative_cosine(first, second, good, good)]
        assert np.isnan([float(loss) for loss in found]).all()
    assert math.isnan(float(soft_cross_entropy(broken, paddle.full([rows, 16], 1 / 16))))


def test_smoothed_targets():
    targets = smooth_one_hot(paddle.to_tensor([2, 0]), 4, 0.2).numpy()
    np.testing.assert_allclose(targets, [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]], rtol=1e-6)


def test_target_momentum():
    assert target_momentum(0.97, 0.0) == 0.97
    assert target_momentum(0.97, 1.0) == 1.0
    np.testing.assert_allclose(target_momentum(0.97, 0.25), 1 - 0.03 * (math.cos(math.pi / 4) + 1) / 2)


def test_feature_std():
    x = np.random.default_rng(0).normal(size=[4000, 16]).astype("float32")
    features = paddle.to_tensor(x, stop_gradient=False)
    np.testing.assert_allclose(float(feature_std(features)), 1.0, atol=0.01)
    np.testing.assert_allclose(float(feature_std(features)), 4 * unit(x).std(0).mean(), rtol=1e-4)
    assert feature_std(features).stop_gradient
    np.testing.assert_allclose(float(feature_std(paddle.ones([8, 16]) * paddle.rand([8, 1]))), 0.0, atol=1e-3)


def test_top_k_accuracy():
    scores = paddle.to_tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]])
    labels = paddle.to_tensor([0, 1, 0, 1])
    assert [float(top_k_accuracy(scores, labels, k)) for k in (1, 2, 3, 5)] == [0.25, 0.5, 1.0, 1.0]
