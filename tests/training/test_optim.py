"""Every update against its formula for several steps; a restored optimiser against the one that went on."""
import math

import numpy as np
import paddle
import pytest
from helpers.optimisers import RATES, assert_same_parameters, gradients, named_parameters, take_steps, trained
from paddle import nn

from passl_mixer import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.training.optim import build_optimizer


def adamw(w, g, slots, lr, decay, o, t):
    m = slots["m"] = o["beta1"] * slots.get("m", 0) + (1 - o["beta1"]) * g
    v = slots["v"] = o["beta2"] * slots.get("v", 0) + (1 - o["beta2"]) * g * g
    m, v = m / (1 - o["beta1"] ** t), v / (1 - o["beta2"] ** t)
    return w * (1 - lr * (0 if decay is None else decay)) - lr * m / (np.sqrt(v) + o["eps"])


def sgd(w, g, slots, lr, decay, o, t):
    slots["v"] = o["momentum"] * slots.get("v", 0) + g + (0 if decay is None else decay) * w
    return w - lr * slots["v"]


def nesterov(w, g, slots, lr, decay, o, t):
    slots["v"] = o["momentum"] * slots.get("v", 0) + g
    return w - lr * (g + o["momentum"] * slots["v"])


def adapted(w, g, decay, o):
    if decay is not None:
        g = g + decay * w
        if np.linalg.norm(w) > 0 and np.linalg.norm(g) > 0:
            g = g * o["trust_coefficient"] * np.linalg.norm(w) / np.linalg.norm(g)
    return g


def lars_rate_outside(w, g, slots, lr, decay, o, t):
    slots["v"] = o["momentum"] * slots.get("v", 0) + adapted(w, g, decay, o)
    return w - lr * slots["v"]


def lars(w, g, slots, lr, decay, o, t):
    g = adapted(w, g, decay, o)
    slots["v"] = o["momentum"] * slots.get("v", 0) + lr * g
    return w - slots["v"]


CASES = [
    (adamw, {"name": "adamw", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}),
    (adamw, {"name": "adamw", "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "clip_norm": 0.5}),
    (sgd, {"name": "sgd", "weight_decay": 0.1, "momentum": 0.7}),
    (sgd, {"name": "sgd", "momentum": 0.0, "clip_norm": 2.0}),
    (nesterov, {"name": "sgd", "momentum": 0.7, "nesterov": True}),
    (lars, {"name": "lars", "weight_decay": 0.1, "momentum": 0.9, "trust_coefficient": 0.02}),
    (lars, {"name": "lars", "momentum": 0.9, "trust_coefficient": 1e-3, "clip_norm": 1.0}),
    (lars_rate_outside, {"name": "lars", "weight_decay": 0.1, "momentum": 0.9, "trust_coefficient": 0.02,
                         "lr_in_velocity": False}),
    (lars, {"name": "lars", "weight_decay": 0.1, "momentum": 0.9, "trust_coefficient": 0.02, "decay_vectors": True}),
    (sgd, {"name": "sgd", "weight_decay": 0.1, "momentum": 0.7, "decay_vectors": True}),
    (adamw, {"name": "adamw", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "decay_vectors": True}),
]


@pytest.mark.parametrize(("rule", "cfg"), CASES)
def test_update_is_its_formula(rule, cfg):
    start = named_parameters()
    weights = {n: p.numpy().astype("float64") for n, p in start}
    slots = {n: {} for n in weights}
    for i, lr in enumerate(RATES):
        grads = {n: g.astype("float64") for n, g in gradients(i, start).items()}
        norm = math.sqrt(sum((g ** 2).sum() for g in grads.values()))
        scale = min(1.0, cfg["clip_norm"] / norm) if "clip_norm" in cfg else 1.0
        for n, w in weights.items():
            decay = None if w.ndim <= 1 and not cfg.get("decay_vectors") else cfg.get("weight_decay", 0.0)
            weights[n] = rule(w, grads[n] * scale, slots[n], lr, decay, cfg, i + 1)
    for n, p in trained(cfg)[0]:
        np.testing.assert_allclose(p.numpy(), weights[n], rtol=2e-5, atol=2e-6, err_msg=n)


@pytest.mark.parametrize("cfg", [c for _, c in CASES] + [
    {"name": name, "weight_decay": 0.1, "fixed_lr": ["1.*"]} for name in ("sgd", "adamw", "lars")])
def test_restored_optimiser_goes_on_bitwise(cfg):
    named, optimiser = trained(cfg, RATES[:2])
    saved = {n: p.numpy() for n, p in named}
    state = optimiser.state()
    assert all(key.rpartition("/")[0] in saved for key in state)
    other = named_parameters()
    for n, p in other:
        p.set_value(saved[n])
    fresh = build_optimizer(cfg, other)
    fresh.load(state)
    for parameters, either in ((named, optimiser), (other, fresh)):
        take_steps(parameters, either, RATES[2:], start=2, **({"fixed_lr": 0.2} if "fixed_lr" in cfg else {}))
    assert_same_parameters(named, other)
    again, expected = fresh.state(), optimiser.state()
    assert again.keys() == expected.keys()
    assert all(np.array_equal(again[k], expected[k]) for k in again)


@pytest.mark.parametrize("cfg", [{"name": "sgd", "weight_decay": 0.1}, {"name": "adamw", "weight_decay": 0.1},
                                 {"name": "lars", "weight_decay": 0.1, "clip_norm": 0.5}], ids=lambda c: c["name"])
def test_fixed_rates_stay_and_the_others_follow(cfg):
    """Parameters with a fixed rate move as if that rate had been everybody's."""
    mixed = named_parameters()
    take_steps(mixed, build_optimizer({**cfg, "fixed_lr": ["2.*"]}, mixed), (0.1, 0.05, 0.01), fixed_lr=0.2)
    scheduled, constant = (dict(trained(cfg, rates)[0]) for rates in ((0.1, 0.05, 0.01), (0.2,) * 3))
    assert_same_parameters(mixed, [(n, (constant if n.startswith("2.") else scheduled)[n]) for n, _ in mixed])


def test_state_is_a_copy_and_load_forgets_what_was_there():
    cfg = {"name": "adamw"}
    named, optimiser = trained(cfg, RATES[:1])
    state = optimiser.state()
    copy = {k: v.copy() for k, v in state.items()}
    take_steps(named, optimiser, RATES[1:], start=1)
    assert all(np.array_equal(state[k], copy[k]) for k in state)
    optimiser.load({})
    assert optimiser.state() == {}


def test_state_of_another_model_is_refused():
    optimiser = trained({"name": "sgd"}, RATES[:1])[1]
    with pytest.raises(BadInput, match="no such trainable parameter"):
        optimiser.load({"9.weight/velocity_0": np.zeros([3, 4], "float32")})
    with pytest.raises(BadInput, match="another model"):
        optimiser.load({"0.weight/velocity_0": np.zeros([3, 5], "float32")})


def test_names_that_begin_with_one_another_keep_their_own_state():
    import copy
    first = nn.Linear(2, 3)
    named = [("a.w", first.weight), ("b.w", copy.deepcopy(first).weight)]
    state = trained({"name": "adamw"}, RATES[:1], named)[1].state()
    assert {k.split("/")[0] for k in state} == {"a.w", "b.w"}
    assert len({k.split("/")[1] for k in state}) == len(state) // 2


def test_exclusion_by_structured_name():
    cfg = {"name": "lars", "exclude": ["2.*"]}
    assert build_optimizer(cfg, named_parameters()).excluded == {
        "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    with pytest.raises(BadInput, match="matches no parameter"):
        build_optimizer({"name": "lars", "exclude": ["*.scale"]}, named_parameters())


def test_every_parameter_is_decayed_when_asked_for():
    """``decay_vectors``: only patterns that are given count, none of those that hold without it."""
    def excluded(**options):
        return build_optimizer({"name": "sgd", **options}, named_parameters()).excluded
    assert excluded() == excluded(decay_vectors=False) == {"0.bias", "1.weight", "1.bias", "2.bias"}
    assert excluded(decay_vectors=True) == set()
    assert excluded(decay_vectors=True, exclude=["1.*"]) == {"1.weight", "1.bias"}
    table = paddle.create_parameter([3, 2], "float32")
    assert build_optimizer({"name": "adamw"}, [("a.bias_table", table)]).excluded == {"a.bias_table"}
    assert build_optimizer({"name": "adamw", "decay_vectors": True}, [("a.bias_table", table)]).excluded == set()


def test_gradient_norm_and_parameters_without_gradient():
    named = named_parameters()
    optimiser = build_optimizer({"name": "lars", "clip_norm": 1.0}, named)
    assert float(optimiser.grad_norm()) == 0.0
    (named[0][1] * 3.0).sum().backward()
    assert math.isclose(float(optimiser.grad_norm()), 3.0 * math.sqrt(12), rel_tol=1e-6)
    before = named[-1][1].numpy()
    optimiser.step(0.1)
    assert math.isclose(float(optimiser.grad_norm()), 1.0, rel_tol=1e-5)
    assert np.array_equal(before, named[-1][1].numpy())
    assert set(optimiser.state()) == {"0.weight/velocity"}


@pytest.mark.parametrize(("cfg", "words"), [
    ({"name": "adam"}, "did you mean 'adamw'"),
    ("adamw", "unknown optimiser"),
    ({"name": "adamw", "momentum": 0.9}, "has no option 'momentum'"),
    ({"name": "sgd", "weight_dcay": 0.9}, "did you mean 'weight_decay'"),
    ({"name": "sgd", "momentum": 1.0}, r"in \[0, 1\)"),
    ({"name": "sgd", "weight_decay": -1.0}, ">= 0"),
    ({"name": "sgd", "clip_norm": 0}, "positive"),
    ({"name": "lars", "trust_coefficient": "1e-3"}, "expected a number"),
    ({"name": "sgd", "nesterov": 1}, "true or false"), ({"name": "adamw", "nesterov": True}, "no option 'nesterov'"),
    ({"name": "lars", "lr_in_velocity": "no"}, "option 'lr_in_velocity' is 'no', expected true or false"),
    ({"name": "sgd", "lr_in_velocity": True}, "no option 'lr_in_velocity'"),
    ({"name": "adamw", "decay_vectors": 0.1}, "option 'decay_vectors' is 0.1, expected true or false"),
    ({"name": "sgd", "fixed_lr": ["predictor.*"]}, r"optim.fixed_lr: pattern 'predictor.\*' matches no parameter"),
])
def test_bad_options(cfg, words):
    cfg = cfg if isinstance(cfg, dict) else {"name": None}
    with pytest.raises(BadInput, match=words):
        build_optimizer(cfg, named_parameters())


def test_null_options_are_left_out_and_an_empty_list_is_refused():
    assert build_optimizer({"name": "adamw", "momentum": None, "clip_norm": None}, named_parameters())
    with pytest.raises(BadInput, match="nothing to optimise"):
        build_optimizer({"name": "adamw"}, [])


def test_embeddings_of_the_comparison_backbones_are_not_decayed():
    """As DeiT and Swin train, whatever configuration they are swapped into."""
    for name, excluded in (("vit_nano", ["position", "class_token"]), ("swin_nano", ["bias_table"])):
        named = [(f"backbone.{n}", p) for n, p in build_backbone(name).named_parameters()]
        optimizer = build_optimizer({"name": "adamw", "weight_decay": 0.1}, named)
        matrices = {n for n, p in named if p.ndim > 1}
        assert {n for n in matrices if n.endswith(tuple(excluded))} == matrices & optimizer.excluded
        assert matrices - optimizer.excluded
