"""Activations computed again in the backward pass: loss, gradients and statistics as without, bit for bit."""
import numpy as np
import paddle
import pytest
from helpers.backbones import SMALL

from passl_mixer import build_backbone
from passl_mixer.layers.recompute import set_recompute
from passl_mixer.training.run import build_run
from passl_mixer.training.step import train_step


def gradients(name: str, recompute: bool, *, steps: int = 2, frozen_stem: bool = False):
    """``(gradients, state)`` by name after ``steps`` passes of two views each, gradients added up."""
    paddle.seed(3)
    backbone = build_backbone({"name": name, **SMALL[name]})
    backbone.train()
    set_recompute(backbone, recompute)
    if frozen_stem:
        for parameter in backbone.stem.parameters():
            parameter.trainable = False
    paddle.seed(4)
    images = paddle.randn([2 * steps, 4, 3, 16, 16])
    direction = paddle.randn([backbone.num_features])
    for step in range(steps):
        features = [backbone(images[2 * step + view]) for view in range(2)]
        noise = paddle.rand([4, 1])       # the draws after a block must not depend on recomputation either
        sum(((f * direction) ** 2 * noise).sum() for f in features).backward()
    state = {n: v.numpy() for n, v in backbone.state_dict().items()}
    return {n: p.grad.numpy() for n, p in backbone.named_parameters() if p.grad is not None}, state


def assert_same(one: dict, other: dict):
    assert one.keys() == other.keys()
    assert any(np.abs(v).max() > 0 for v in one.values())
    for key in one:
        assert np.array_equal(one[key], other[key]), key


@pytest.mark.parametrize("name", SMALL)
def test_gradients_and_statistics_are_the_same_bit_for_bit(name):
    for kept, again in zip(gradients(name, False), gradients(name, True)):
        assert_same(kept, again)


def test_a_frozen_stem_does_not_cut_the_blocks_off():
    kept, again = (gradients("MlpMixer", on, frozen_stem=True)[0] for on in (False, True))
    assert "stem.weight" not in kept
    assert "blocks.0.norm1.weight" in kept
    assert_same(kept, again)


def passes_of_a_step(*, grad: bool, training: bool, on: bool = True) -> int:
    """How often the first block runs in a forward and, where there is one, a backward pass."""
    backbone = build_backbone({"name": "MlpMixer", **SMALL["MlpMixer"]})
    set_recompute(backbone, on)
    backbone.train() if training else backbone.eval()
    seen = []
    backbone.blocks[0].register_forward_pre_hook(lambda layer, inputs: seen.append(1))
    with paddle.set_grad_enabled(grad):
        features = backbone(paddle.randn([2, 3, 16, 16]))
    if grad:
        features.sum().backward()
    return len(seen)


def test_blocks_run_twice_only_where_gradients_of_a_training_step_want_it():
    assert passes_of_a_step(grad=True, training=True) == 2
    assert passes_of_a_step(grad=True, training=True, on=False) == 1
    assert passes_of_a_step(grad=True, training=False) == 1
    assert passes_of_a_step(grad=False, training=True) == 1


@pytest.mark.parametrize("method", ["{name: simclr}", "{name: moco, queue_size: 32}", "{name: byol}"])
def test_training_steps_are_the_same(tiny, method):
    def losses(on):
        run = build_run(tiny(f"train.recompute={on}", f"model.method={method}",
                                 "model.backbone={drop_path_rate: 0.3, num_blocks: 2}"))
        assert run.method.backbone.blocks[0].recompute is (on == "true")
        batches = list(run.loader.epoch(0))
        return [float(train_step(run, batch, step)["loss"]) for step, batch in enumerate(batches)]
    assert losses("true") == losses("false")
