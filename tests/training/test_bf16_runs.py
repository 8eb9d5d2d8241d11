"""Runs in bfloat16 on a CPU: the losses of every method, the parameters' types, resume and recompute bit for bit."""
import numpy as np
import paddle
import pytest
from helpers.backbones import SMALL
from helpers.marks import needs_bf16, slow_but
from helpers.methods import override
from helpers.runs import first_losses
from test_host_reads import RUNS

from passl_mixer.ops import native
from passl_mixer.training.run import build_run
from passl_mixer.training.trainer import train

CASES = {**RUNS, **{name: [override("model.backbone", {"name": name, **SMALL[name]})] for name in SMALL}}
BF16 = "train.precision=bf16"


def losses(run, steps: int = 3) -> list:
    return [float(loss) for loss in first_losses(run, steps)]


@needs_bf16
@pytest.mark.parametrize("name", slow_but([*RUNS, "MlpMixer", "ConvMLP", "CycleMLP", "ConvMixer"], CASES))
def test_losses_are_those_of_float32_to_the_rounding_of_products(tiny, name):
    full, run = build_run(tiny(*CASES[name])), build_run(tiny(*CASES[name], BF16))
    assert run.precision.dtype == "bfloat16"
    before = {key: tensor.dtype for key, tensor in run.method.state_dict().items()}
    first, plain = losses(run), losses(full)
    assert abs(first[0] - plain[0]) < 0.02 * max(abs(plain[0]), 1)
    np.testing.assert_allclose(first, plain, rtol=0, atol=0.1 * max(np.abs(plain).max(), 1))
    assert first != plain
    assert {key: tensor.dtype for key, tensor in run.method.state_dict().items()} == before
    assert all(p.dtype == paddle.float32 for _, p in run.method.trainable_parameters())


@needs_bf16
@pytest.mark.parametrize("name", ["MlpMixer", "ConvMLP", "CycleMLP"])
def test_recompute_gives_the_same_losses(tiny, name):
    drop_path = "model.backbone.drop_path_rate=0.3"
    common = [*CASES[name], BF16, drop_path]
    assert losses(build_run(tiny(*common))) == losses(build_run(tiny(*common, "train.recompute=true")))


@needs_bf16
@pytest.mark.parametrize("name", slow_but(["simclr"], [*RUNS]))
def test_a_resumed_run_is_the_same_bit_for_bit(tiny, tmp_path, name):
    common = [*CASES[name], BF16, "schedule.epochs=2", "train.checkpoint_every_steps=3", "train.keep_checkpoints=9"]
    whole, parts = (f"output_dir={tmp_path / place}" for place in ("whole", "parts"))
    train(tiny(*common, whole))
    train(tiny(*common, parts, "train.max_steps=3"))
    train(tiny(*common, parts), resume=True)
    states = [paddle_arrays(tmp_path / place) for place in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key], err_msg=key)


def paddle_arrays(folder) -> dict:
    from passl_mixer.checkpoint import checkpoints_of, read_checkpoint
    arrays, optimiser, _ = read_checkpoint(checkpoints_of(folder)[-1])
    return {**arrays, **{f"optimiser {key}": value for key, value in (optimiser or {}).items()}}


def test_where_it_is_not_there_the_run_says_so_and_computes_in_float32(tiny, monkeypatch, capsys):
    monkeypatch.setattr(native, "has_bf16", lambda: False)
    monkeypatch.setattr(native, "bf16_status", lambda: "the processor has no instructions for it")
    run = build_run(tiny(BF16))
    assert run.precision.dtype is None
    train(tiny(BF16, "train.max_steps=1"))
    assert ("train.precision bf16 is not available on cpu (the processor has no instructions for it): computing in "
            "float32") in capsys.readouterr().out
    assert losses(build_run(tiny("train.precision=auto"))) == losses(build_run(tiny()))
