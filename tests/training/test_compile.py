"""``train.compile``: the backbone as a static program trains like the eager one."""
import numpy as np
import paddle
import pytest
from helpers.arrays import assert_same, state_of
from helpers.backbones import SMALL, LeavesPaddle, small
from helpers.gradients import gradients_of, project
from helpers.marks import slow_but
from helpers.runs import first_losses

from passl_mixer.errors import BadInput
from passl_mixer.training.run import build_run
from passl_mixer.training.static_graph import compile_backbone
from passl_mixer.training.trainer import train

# Paddle 3.3 says it of itself while it traces a backward pass
pytestmark = pytest.mark.filterwarnings("ignore:Tensor do not have 'place':UserWarning")


@pytest.mark.parametrize("overrides", slow_but(lambda overrides: len(overrides) == 1, [
    ["model.backbone={num_blocks: 2, drop_path_rate: 0.3}"],
    ["model.backbone={name: ConvMLP, stem_channels: 8, num_conv_blocks: 1, embed_dims: [8, 16], depths: [1, 1], "
     "mlp_ratios: [2, 2]}", "model.method={name: supervised}", "model.head={name: linear, num_classes: 4}",
     "data.train_views={name: inception, img_size: 16}"]]))
def test_twenty_losses_are_those_of_the_eager_network(tiny, overrides):
    common = [*overrides, "schedule.epochs=10", "schedule.warmup_epochs=0", "optim={name: sgd, lr: 0.01}"]
    eager, compiled = ([float(loss) for loss in first_losses(build_run(tiny(*common, f"train.compile={on}")), 20)]
                       for on in ("false", "true"))
    assert len(set(eager)) == 20
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)


@pytest.mark.parametrize("name", slow_but(["MlpMixer"], SMALL))
def test_every_family_can_be_compiled(name):
    """Features, gradients and running statistics after one pass, from the same weights."""
    found = []
    for compile_it in (False, True):
        backbone = small(name, training=True, seed=5)
        before = state_of(backbone)
        if compile_it:
            compile_backbone(backbone, name, 16)
            assert_same(state_of(backbone), before)
        paddle.seed(6)
        features = backbone(paddle.randn([4, 3, 16, 16]))
        project(features).backward()
        found.append(({"features": features.numpy(), **gradients_of(backbone)}, state_of(backbone)))
    for eager, compiled in zip(*found):
        assert eager.keys() == compiled.keys()
        for key in eager:
            scale = max(np.abs(eager[key]).max(), 1.0)
            np.testing.assert_allclose(compiled[key], eager[key], rtol=1e-3, atol=2e-5 * scale, err_msg=key)


def test_a_compiled_run_evaluates_saves_and_continues(tiny, tmp_path):
    config = ["train.compile=true", "evaluate.every_epochs=1", "evaluate.at_end=[knn]"]
    train(tiny(*config, "train.max_steps=3"))
    summary = train(tiny(*config), resume=True)
    assert 0 <= summary["knn"]["pretrained"] <= 1
    assert summary["steps"] == 8


def test_a_backbone_that_cannot_be_compiled_is_named():
    backbone = LeavesPaddle()
    with pytest.raises(BadInput, match=r"backbone 'peeking' cannot be compiled by this Paddle .*train.compile=false"):
        compile_backbone(backbone, "peeking", 16)
    assert backbone(paddle.ones([1, 3, 16, 16])).shape == [1, 3]


def test_recompute_and_compile_exclude_each_other(tiny):
    with pytest.raises(BadInput, match=r"'train.recompute' and 'train.compile' are both true"):
        tiny("train.recompute=true", "train.compile=true")
