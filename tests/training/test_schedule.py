"""The learning rate of every step: warm-ups, the cosine, the line and the staircase."""
import math

import numpy as np
import paddle
import pytest

from passl_mixer.config import get_config
from passl_mixer.errors import BadInput
from passl_mixer.training.optim import learning_rate, scaled_lr
from passl_mixer.training.run import build_run
from passl_mixer.training.step import lr_at


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
    run = build_run(tiny("schedule.epochs=2", "schedule.warmup_epochs=0", "schedule.warmup_steps=3",
                         "schedule.decay=linear", "schedule.min_lr=0.0"))
    assert run.total_steps == 8
    rates = [lr_at(run, i) / run.peak_lr for i in range(8)]
    assert rates == pytest.approx([0, 1 / 3, 2 / 3, 1.0, 0.8, 0.6, 0.4, 0.2])
    epochs = build_run(tiny("schedule.epochs=2", "schedule.warmup_epochs=0.5"))
    assert [lr_at(epochs, i) / epochs.peak_lr for i in range(3)] == pytest.approx([0, 0.5, 1.0])


def test_a_run_steps_down_where_its_epochs_say(tiny, tmp_path):
    run = build_run(tiny("schedule.epochs=4", "schedule.warmup_epochs=0", "schedule.decay_epochs=[1, 2.5]",
                         "schedule.decay_factor=0.5"))
    assert run.steps_per_epoch == 4
    rates = [lr_at(run, i) / run.peak_lr for i in range(16)]
    assert rates == pytest.approx([1.0] * 4 + [0.5] * 6 + [0.25] * 6)
    assert get_config(tmp_path / "tiny.yaml").schedule.decay_epochs is None


@pytest.mark.parametrize(("overrides", "words"), [
    (["schedule.warmup_steps=3"], "two lengths of one warm-up"),
    (["schedule.warmup_epochs=0", "schedule.warmup_steps=-1"], "0 or more"),
    (["schedule.warmup_epochs=0", "schedule.warmup_steps=1.5"], "'schedule.warmup_steps' is 1.5, expected an integer"),
    (["schedule.decay=line"], "'schedule.decay' is 'line', expected cosine or linear"),
    (["schedule.decay=linear", "schedule.decay_epochs=[1]"], "a staircase and a line"),
    (["schedule.decay_epochs=[2, 1]"], "rising order"), (["schedule.decay_epochs=[]"], "rising order"),
    (["schedule.decay_epochs=[0, 1]"], "rising order"), (["schedule.decay_factor=0.5"], "without"),
    (["schedule.decay_epochs=[1]", "schedule.min_lr=0.1"], "min_lr of 0"),
    (["schedule.decay_epochs=3"], "a list of a number")])
def test_a_bad_schedule_is_refused(tiny, overrides, words):
    with pytest.raises(BadInput, match=words):
        tiny(*overrides)
