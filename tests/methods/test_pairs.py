"""Every backbone family with every method: one step changes what it must and nothing else."""
import numpy as np
import paddle
import pytest
from helpers.arrays import differing, state_of
from helpers.backbones import COMPARED
from helpers.marks import slow_but
from helpers.methods import SELF_SUPERVISED, model_of

from passl_mixer import build_method
from passl_mixer.training.optim import build_optimizer


@pytest.mark.parametrize("method", ["supervised", *SELF_SUPERVISED])
@pytest.mark.parametrize("backbone", slow_but(COMPARED[:-1], COMPARED), ids=lambda b: b["name"])
def test_one_step(backbone, method):
    paddle.seed(0)
    m = build_method(model_of(method, backbone))
    m.check_batch(4)
    before = state_of(m)
    optimiser = build_optimizer({"name": "lars", "trust_coefficient": 1.0}, m.trainable_parameters())
    assert {n.split(".")[0] for n, _ in m.trainable_parameters()} <= {"backbone", "head", "predictor"}
    rng = np.random.default_rng(0)
    for _ in range(2):  # the zero-initialised classifier lets no gradient through at first
        arrays = rng.normal(size=[m.num_views, 4, 3, 32, 32]).astype("float32")
        views = [paddle.to_tensor(a) for a in arrays]
        result = m(views, paddle.to_tensor([0, 1, 2, 3]) if method == "supervised" else None)
        assert all(value.stop_gradient for key, value in result.items() if key != "loss")
        assert all(np.isfinite(float(value)) for value in result.values())
        result["loss"].backward()
        missing = [n for n, p in m.trainable_parameters() if p.grad is None]
        assert missing == []
        optimiser.step(0.1)
        optimiser.clear_grad()
        m.after_step(0, 2)
    trained = dict(m.trainable_parameters())
    still = set(before) - differing(before, state_of(m))
    # A bias before a normalisation has no gradient beyond rounding; all else must have moved.
    assert [k for k in still if k in trained and not k.endswith(".bias")] == []
    followers = {"moco": ("key_",), "byol": ("target_",), "moco_v3": ("key_",)}.get(method, ())
    weights = [k for k in before if followers and k.startswith(followers) and k.endswith(".weight")]
    if method == "moco_v3" and backbone["name"].startswith("mlp_mixer"):
        assert "backbone.stem.weight" in still
        weights.remove("key_backbone.stem.weight")
    assert bool(weights) == bool(followers)
    assert not set(weights) & set(still)
