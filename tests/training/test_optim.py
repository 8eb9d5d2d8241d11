"""Every update against its formula for several steps; a restored optimiser against the one that went on."""
import math

import numpy as np
import paddle
import pytest
from paddle import nn

from passl_mixer import build_backbone
from passl_mixer.errors import BadInput
from passl_mixer.training.adamw import CHUNK, SLOTS, FusedAdamW, kernel_lr_dtype
from passl_mixer.training.optim import build_optimizer, learning_rate, scaled_lr

RATES = (0.1, 0.3, 0.05, 0.2)


def model():
    layer = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    rng = np.random.default_rng(1)
    for p in layer.parameters():
        p.set_value(rng.normal(size=p.shape).astype("float32"))
    return layer


def gradients(step, named):
    rng = np.random.default_rng(100 + step)
    return {n: rng.normal(size=p.shape).astype("float32") for n, p in named}


def give(named, grads):
    """Put given gradients on the parameters through a loss that is linear in them."""
    loss = sum((p * paddle.to_tensor(grads[n])).sum() for n, p in named)
    loss.backward()


def run(cfg, rates=RATES, optimiser=None, named=None, start=0):
    named = named or list(model().named_parameters())
    optimiser = optimiser or build_optimizer(cfg, named)
    for i, lr in enumerate(rates, start):
        give(named, gradients(i, named))
        optimiser.step(lr)
        optimiser.clear_grad()
    return named, optimiser


def adamw(w, g, slots, lr, decay, o, t):
    m = slots["m"] = o["beta1"] * slots.get("m", 0) + (1 - o["beta1"]) * g
    v = slots["v"] = o["beta2"] * slots.get("v", 0) + (1 - o["beta2"]) * g * g
    m, v = m / (1 - o["beta1"] ** t), v / (1 - o["beta2"] ** t)
    return w * (1 - lr * (0 if decay is None else decay)) - lr * m / (np.sqrt(v) + o["eps"])


def sgd(w, g, slots, lr, decay, o, t):
    slots["v"] = o["momentum"] * slots.get("v", 0) + g + (0 if decay is None else decay) * w
    return w - lr * slots["v"]


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
    start = list(model().named_parameters())
    weights = {n: p.numpy().astype("float64") for n, p in start}
    slots = {n: {} for n in weights}
    for i, lr in enumerate(RATES):
        grads = {n: g.astype("float64") for n, g in gradients(i, start).items()}
        norm = math.sqrt(sum((g ** 2).sum() for g in grads.values()))
        scale = min(1.0, cfg["clip_norm"] / norm) if "clip_norm" in cfg else 1.0
        for n, w in weights.items():
            decay = None if w.ndim <= 1 and not cfg.get("decay_vectors") else cfg.get("weight_decay", 0.0)
            weights[n] = rule(w, grads[n] * scale, slots[n], lr, decay, cfg, i + 1)
    for n, p in run(cfg)[0]:
        np.testing.assert_allclose(p.numpy(), weights[n], rtol=2e-5, atol=2e-6, err_msg=n)


@pytest.mark.parametrize("cfg", [c for _, c in CASES])
def test_restored_optimiser_goes_on_bitwise(cfg):
    named, optimiser = run(cfg, RATES[:2])
    saved = {n: p.numpy() for n, p in named}
    state = optimiser.state()
    assert all(key.rpartition("/")[0] in saved for key in state)
    run(cfg, RATES[2:], optimiser, named, start=2)
    other = list(model().named_parameters())
    for n, p in other:
        p.set_value(saved[n])
    fresh = build_optimizer(cfg, other)
    fresh.load(state)
    run(cfg, RATES[2:], fresh, other, start=2)
    for (n, p), (_, q) in zip(named, other):
        assert np.array_equal(p.numpy(), q.numpy()), n
    again, expected = fresh.state(), optimiser.state()
    assert again.keys() == expected.keys()
    assert all(np.array_equal(again[k], expected[k]) for k in again)


def test_state_is_a_copy_and_load_forgets_what_was_there():
    cfg = {"name": "adamw"}
    named, optimiser = run(cfg, RATES[:1])
    state = optimiser.state()
    copy = {k: v.copy() for k, v in state.items()}
    run(cfg, RATES[1:], optimiser, named, start=1)
    assert all(np.array_equal(state[k], copy[k]) for k in state)
    optimiser.load({})
    assert optimiser.state() == {}


def test_state_of_another_model_is_refused():
    optimiser = run({"name": "sgd"}, RATES[:1])[1]
    with pytest.raises(BadInput, match="no such trainable parameter"):
        optimiser.load({"9.weight/velocity_0": np.zeros([3, 4], "float32")})
    with pytest.raises(BadInput, match="another model"):
        optimiser.load({"0.weight/velocity_0": np.zeros([3, 5], "float32")})


def test_names_that_begin_with_one_another_keep_their_own_state():
    import copy
    first = nn.Linear(2, 3)
    named = [("a.w", first.weight), ("b.w", copy.deepcopy(first).weight)]
    state = run({"name": "adamw"}, RATES[:1], named=named)[1].state()
    assert {k.split("/")[0] for k in state} == {"a.w", "b.w"}
    assert len({k.split("/")[1] for k in state}) == len(state) // 2


def test_exclusion_by_structured_name():
    cfg = {"name": "lars", "exclude": ["2.*"]}
    assert build_optimizer(cfg, model().named_parameters()).excluded == {
        "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    with pytest.raises(BadInput, match="matches no parameter"):
        build_optimizer({"name": "lars", "exclude": ["*.scale"]}, model().named_parameters())


def test_gradient_norm_and_parameters_without_gradient():
    named = list(model().named_parameters())
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
])
def test_bad_options(cfg, words):
    cfg = cfg if isinstance(cfg, dict) else {"name": None}
    with pytest.raises(BadInput, match=words):
        build_optimizer(cfg, model().named_parameters())


def test_null_options_are_left_out_and_an_empty_list_is_refused():
    assert build_optimizer({"name": "adamw", "momentum": None, "clip_norm": None}, model().named_parameters())
    with pytest.raises(BadInput, match="nothing to optimise"):
        build_optimizer({"name": "adamw"}, [])


def test_learning_rate():
    def at(step):
        return learning_rate(step, base=2.0, total_steps=14, warmup_steps=4, final=0.5)
    np.testing.assert_allclose([at(s) for s in range(5)], [0.0, 0.5, 1.0, 1.5, 2.0])
    assert math.isclose(at(9), 1.25)
    assert math.isclose(at(14), 0.5)
    assert math.isclose(at(20), 0.5)
    assert all(at(s) > at(s + 1) for s in range(4, 14))
    assert learning_rate(0, base=1.0, total_steps=1) == 1.0
    assert scaled_lr(0.3, 512, 256) == 0.6


def test_embeddings_of_the_comparison_backbones_are_not_decayed():
    """As DeiT and Swin train, whatever configuration they are swapped into."""
    for name, excluded in (("vit_nano", ["position", "class_token"]), ("swin_nano", ["bias_table"])):
        named = [(f"backbone.{n}", p) for n, p in build_backbone(name).named_parameters()]
        optimizer = build_optimizer({"name": "adamw", "weight_decay": 0.1}, named)
        matrices = {n for n, p in named if p.ndim > 1}
        assert {n for n in matrices if n.endswith(tuple(excluded))} == matrices & optimizer.excluded
        assert matrices - optimizer.excluded


def paddles_adamw(named, cfg):
    decayed = {p.name for n, p in named if p.ndim > 1}
    return paddle.optimizer.AdamW(
        parameters=[p for _, p in named], weight_decay=cfg["weight_decay"], beta1=cfg["beta1"], beta2=cfg["beta2"],
        epsilon=cfg["eps"], apply_decay_param_fun=lambda name: name in decayed)


def test_fused_adamw_is_paddles_bit_for_bit_and_takes_its_state():
    """Also for parameters that have no gradient in some steps: their powers of beta stay behind."""
    cfg = CASES[0][1]
    assert kernel_lr_dtype("cpu") == "float32"
    sides = []
    for _ in range(2):
        named = list(model().named_parameters())
        sides.append((named, build_optimizer(cfg, named)))
    (ours, optimiser), (theirs, switched) = sides
    paddles = paddles_adamw(theirs, cfg)
    assert isinstance(optimiser._rules[0][0], FusedAdamW)
    for step, lr in enumerate(RATES):
        grads = gradients(step, ours)
        for named in (ours, theirs):
            for name, p in named:
                if step % 2 == 0 or name.startswith("2."):
                    p.grad = paddle.to_tensor(grads[name])
        optimiser.step(lr)
        if step < 2:
            paddles.set_lr(lr)
            paddles.step()
        else:               # the same checkpoint keys: ours goes on where Paddle's stopped
            if step == 2:
                names = {p.name: n for n, p in theirs}
                switched.load({f"{names[p.name]}/{slot}": paddles.state_dict()[f"{p.name}_{slot}"].numpy()
                               for _, p in theirs for slot in SLOTS})
            switched.step(lr)
        for named in (ours, theirs):
            for _, p in named:
                p.clear_gradient(set_to_zero=False)
        for (name, one), (_, other) in zip(ours, theirs):
            assert np.array_equal(one.numpy(), other.numpy()), (name, step)


def test_fused_adamw_refuses_a_kernel_that_computes_something_else(monkeypatch):
    kernel = paddle._C_ops.fused_adam_

    def without_decay(*arguments):
        arguments = list(arguments)
        arguments[arguments.index(CHUNK) + 1] = 0.0
        return kernel(*arguments)

    monkeypatch.setattr(paddle._C_ops, "fused_adam_", without_decay)
    kernel_lr_dtype.cache_clear()
    try:
        assert kernel_lr_dtype("cpu") is None
        named = list(model().named_parameters())
        assert isinstance(build_optimizer(CASES[0][1], named)._rules[0][0], paddle.optimizer.AdamW)
    finally:
        kernel_lr_dtype.cache_clear()
