"""The fused AdamW is Paddle's own, bit for bit, and takes its state."""
import numpy as np
import paddle
from helpers.optimisers import RATES, gradients, named_parameters

from passl_mixer.training.adamw import CHUNK, SLOTS, FusedAdamW, kernel_lr_dtype
from passl_mixer.training.optim import build_optimizer

CFG = {"name": "adamw", "weight_decay": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}


def paddles_adamw(named, cfg):
    decayed = {p.name for n, p in named if p.ndim > 1}
    return paddle.optimizer.AdamW(
        parameters=[p for _, p in named], weight_decay=cfg["weight_decay"], beta1=cfg["beta1"], beta2=cfg["beta2"],
        epsilon=cfg["eps"], apply_decay_param_fun=lambda name: name in decayed)


def test_fused_adamw_is_paddles_bit_for_bit_and_takes_its_state():
    """Also for parameters that have no gradient in some steps: their powers of beta stay behind."""
    assert kernel_lr_dtype("cpu") == "float32"
    sides = []
    for _ in range(2):
        named = named_parameters()
        sides.append((named, build_optimizer(CFG, named)))
    (ours, optimiser), (theirs, switched) = sides
    paddles = paddles_adamw(theirs, CFG)
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
        assert isinstance(build_optimizer(CFG, named_parameters())._rules[0][0], paddle.optimizer.AdamW)
    finally:
        kernel_lr_dtype.cache_clear()


def test_large_parameters_are_updated_by_every_thread_as_by_one():
    """More numbers than one thread takes alone, and a last part that fills no vector."""
    results = []
    for make in (lambda named: build_optimizer(CFG, named)._rules[0][0], lambda named: paddles_adamw(named, CFG)):
        layer = paddle.nn.Linear(211, 407)
        rng = np.random.default_rng(0)
        for p in layer.parameters():
            p.set_value(rng.normal(size=p.shape).astype("float32"))
        optimiser = make(list(layer.named_parameters()))
        for lr in RATES:
            for p in layer.parameters():
                p.grad = paddle.to_tensor(rng.normal(size=p.shape).astype("float32"))
            optimiser.set_lr(lr)
            optimiser.step()
        results.append([p.numpy() for p in layer.parameters()])
    for ours, paddles in zip(*results):
        np.testing.assert_array_equal(ours, paddles)
