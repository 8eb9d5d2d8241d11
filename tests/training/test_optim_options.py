"""The staircase, Nesterov's momentum and rates that do not follow the schedule."""
import numpy as np
import paddle
import pytest
from paddle import nn

from passl_mixer.config import get_config
from passl_mixer.errors import BadInput
from passl_mixer.training.optim import build_optimizer, learning_rate


def named():
    layer = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    rng = np.random.default_rng(1)
    for p in layer.parameters():
        p.set_value(rng.normal(size=p.shape).astype("float32"))
    return list(layer.named_parameters())


def step(parameters, optimiser, i, lr, **options):
    rng = np.random.default_rng(10 + i)
    grads = {n: rng.normal(size=p.shape).astype("float32") for n, p in parameters}
    sum((p * paddle.to_tensor(grads[n])).sum() for n, p in parameters).backward()
    optimiser.step(lr, **options)
    optimiser.clear_grad()
    return grads


def test_a_staircase_is_paddles_multi_step_decay():
    theirs = paddle.optimizer.lr.MultiStepDecay(0.3, [6, 9], gamma=0.2)
    for i in range(12):
        ours = learning_rate(i, base=0.3, total_steps=12, decay_steps=[6, 9], decay_factor=0.2)
        assert ours == pytest.approx(theirs.get_lr(), rel=1e-12)
        theirs.step()
    assert learning_rate(1, base=0.3, total_steps=12, warmup_steps=3, decay_steps=[6]) == pytest.approx(0.1)


def test_warm_up_and_line_are_big_visions():
    """Its schedule with decay_type "linear": the factor of the warm-up times the line (``big_vision/utils.py``)."""
    def theirs(i, base, total, warmup, end):
        progress = np.clip((i - warmup) / float(total - warmup), 0.0, 1.0)
        return (end + (base - end) * (1.0 - progress)) * (min(1.0, i / warmup) if warmup else 1.0)
    for warmup, end in ((0, 0.0), (5, 1e-2)):
        ours = [learning_rate(i, base=0.3, total_steps=12, warmup_steps=warmup, final=end, decay="linear")
                for i in range(13)]
        np.testing.assert_allclose(ours, [theirs(i, 0.3, 12, warmup, end) for i in range(13)], rtol=1e-12)


def test_a_run_warms_up_for_the_steps_it_is_given(tiny):
    from passl_mixer.training.run import build_run
    from passl_mixer.training.step import lr_at
    run = build_run(tiny("schedule.epochs=2", "schedule.warmup_epochs=0", "schedule.warmup_steps=3",
                             "schedule.decay=linear", "schedule.min_lr=0.0"))
    assert run.total_steps == 8
    rates = [lr_at(run, i) / run.peak_lr for i in range(8)]
    assert rates == pytest.approx([0, 1 / 3, 2 / 3, 1.0, 0.8, 0.6, 0.4, 0.2])
    epochs = build_run(tiny("schedule.epochs=2", "schedule.warmup_epochs=0.5"))
    assert [lr_at(epochs, i) / epochs.peak_lr for i in range(3)] == pytest.approx([0, 0.5, 1.0])


@pytest.mark.parametrize(("overrides", "words"), [
    (["schedule.warmup_steps=3"], "two lengths of one warm-up"),
    (["schedule.warmup_epochs=0", "schedule.warmup_steps=-1"], "0 or more"),
    (["schedule.warmup_epochs=0", "schedule.warmup_steps=1.5"], "'schedule.warmup_steps' is 1.5, expected an integer"),
    (["schedule.decay=line"], "'schedule.decay' is 'line', expected cosine or linear"),
    (["schedule.decay=linear", "schedule.decay_epochs=[1]"], "a staircase and a line")])
def test_a_bad_schedule_is_refused(tiny, overrides, words):
    with pytest.raises(BadInput, match=words):
        tiny(*overrides)


def test_every_parameter_is_decayed_when_asked_for():
    """``decay_vectors``: only patterns that are given count, none of those that hold without it."""
    def excluded(**options):
        return build_optimizer({"name": "sgd", **options}, named()).excluded
    assert excluded() == excluded(decay_vectors=False) == {"0.bias", "1.bias"}
    assert excluded(decay_vectors=True) == set()
    assert excluded(decay_vectors=True, exclude=["1.*"]) == {"1.weight", "1.bias"}
    table = paddle.create_parameter([3, 2], "float32")
    assert build_optimizer({"name": "adamw"}, [("a.bias_table", table)]).excluded == {"a.bias_table"}
    assert build_optimizer({"name": "adamw", "decay_vectors": True}, [("a.bias_table", table)]).excluded == set()


@pytest.mark.parametrize(("overrides", "words"), [
    (["schedule.decay_epochs=[2, 1]"], "rising order"), (["schedule.decay_epochs=[]"], "rising order"),
    (["schedule.decay_epochs=[0, 1]"], "rising order"), (["schedule.decay_factor=0.5"], "without"),
    (["schedule.decay_epochs=[1]", "schedule.min_lr=0.1"], "min_lr of 0"),
    (["schedule.decay_epochs=3"], "a list of a number")])
def test_a_bad_staircase_is_refused(tiny, overrides, words):
    with pytest.raises(BadInput, match=words):
        tiny(*overrides)


def test_a_run_steps_down_where_its_epochs_say(tiny, tmp_path):
    from passl_mixer.training.run import build_run
    from passl_mixer.training.step import lr_at
    run = build_run(tiny("schedule.epochs=4", "schedule.warmup_epochs=0", "schedule.decay_epochs=[1, 2.5]",
                             "schedule.decay_factor=0.5"))
    assert run.steps_per_epoch == 4
    rates = [lr_at(run, i) / run.peak_lr for i in range(16)]
    assert rates == pytest.approx([1.0] * 4 + [0.5] * 6 + [0.25] * 6)
    assert get_config(tmp_path / "tiny.yaml").schedule.decay_epochs is None


def test_nesterov_is_its_formula():
    parameters = named()
    weights = {n: p.numpy().astype("float64") for n, p in parameters}
    velocity = dict.fromkeys(weights, 0.0)
    optimiser = build_optimizer({"name": "sgd", "momentum": 0.7, "nesterov": True}, parameters)
    for i, lr in enumerate((0.1, 0.3, 0.05)):
        grads = step(parameters, optimiser, i, lr)
        for n, g in grads.items():
            velocity[n] = 0.7 * velocity[n] + g
            weights[n] = weights[n] - lr * (g + 0.7 * velocity[n])
    for n, p in parameters:
        np.testing.assert_allclose(p.numpy(), weights[n], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cfg", [{"name": "sgd", "weight_decay": 0.1}, {"name": "adamw", "weight_decay": 0.1},
                                 {"name": "lars", "weight_decay": 0.1, "clip_norm": 0.5}], ids=lambda c: c["name"])
def test_fixed_rates_stay_and_the_others_follow(cfg):
    """Parameters with a fixed rate move as if that rate had been everybody's; a reload goes on bitwise."""
    rates, fixed = (0.1, 0.05, 0.01), 0.2
    mixed, scheduled, constant = named(), named(), named()
    optimiser = build_optimizer({**cfg, "fixed_lr": ["1.*"]}, mixed)
    others = [build_optimizer(cfg, p) for p in (scheduled, constant)]
    for i, lr in enumerate(rates):
        step(mixed, optimiser, i, lr, fixed_lr=fixed)
        step(scheduled, others[0], i, lr)
        step(constant, others[1], i, fixed)
    for (n, p), (_, q), (_, r) in zip(mixed, scheduled, constant):
        np.testing.assert_array_equal(p.numpy(), (r if n.startswith("1.") else q).numpy(), err_msg=n)
    again = named()
    for (_, p), (_, q) in zip(again, mixed):
        p.set_value(q.numpy())
    restored = build_optimizer({**cfg, "fixed_lr": ["1.*"]}, again)
    restored.load(optimiser.state())
    step(mixed, optimiser, 9, 0.02, fixed_lr=fixed)
    step(again, restored, 9, 0.02, fixed_lr=fixed)
    for (n, p), (_, q) in zip(mixed, again):
        np.testing.assert_array_equal(p.numpy(), q.numpy(), err_msg=n)


@pytest.mark.parametrize(("cfg", "words"), [
    ({"name": "sgd", "nesterov": 1}, "true or false"), ({"name": "adamw", "nesterov": True}, "no option 'nesterov'"),
    ({"name": "lars", "lr_in_velocity": "no"}, "option 'lr_in_velocity' is 'no', expected true or false"),
    ({"name": "sgd", "lr_in_velocity": True}, "no option 'lr_in_velocity'"),
    ({"name": "adamw", "decay_vectors": 0.1}, "option 'decay_vectors' is 0.1, expected true or false"),
    ({"name": "sgd", "fixed_lr": ["predictor.*"]}, "optim.fixed_lr: pattern 'predictor.\\*' matches no parameter")])
def test_bad_options_are_refused(cfg, words):
    with pytest.raises(BadInput, match=words):
        build_optimizer(cfg, named())
