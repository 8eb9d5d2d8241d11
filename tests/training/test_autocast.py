"""Every network and method trains in bfloat16 as on a GPU: ``helpers/autocast.py`` does it on a CPU."""
import numpy as np
import paddle
import pytest
from helpers.autocast import FULL, LOW, Autocast, take_branches_of_a_gpu
from helpers.backbones import SMALL
from helpers.marks import slow_but
from helpers.methods import override
from helpers.runs import first_losses
from test_host_reads import RUNS

from passl_mixer.training.precision import Precision
from passl_mixer.training.run import build_run
from passl_mixer.training.step import train_step

CASES = {**RUNS, **{name: [override("model.backbone", {"name": name, **SMALL[name]})] for name in SMALL}}
STEPS = 4


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    take_branches_of_a_gpu(monkeypatch)


def losses(run) -> list:
    results = first_losses(run, STEPS)
    assert all(loss.dtype == FULL for loss in results)
    return [float(loss) for loss in results]


def types(run) -> dict:
    return {name: tensor.dtype for name, tensor in run.method.state_dict().items()}


@pytest.mark.parametrize("name", slow_but([*RUNS, "MlpMixer", "ConvMLP", "CycleMLP", "ConvMixer"], CASES))
def test_it_trains_in_bfloat16(tiny, monkeypatch, name):
    full = losses(build_run(tiny(*CASES[name])))
    run = build_run(tiny(*CASES[name]))
    run.precision = Precision("bfloat16")
    before = types(run)
    autocast = Autocast("bfloat16").install(monkeypatch)
    low = losses(run)
    assert np.abs(np.subtract(low, full)).max() < 0.1 * max(np.abs(full).max(), 1)
    assert low != full
    assert types(run) == before
    products = {name: autocast.computed[name] for name in ("linear", "matmul", "conv2d") if name in autocast.computed}
    assert products
    assert all(dtypes == {LOW} for dtypes in products.values())


def test_the_scale_of_float16_falls_until_gradients_fit(tiny, monkeypatch):
    full = losses(build_run(tiny()))
    run = build_run(tiny())
    run.precision = Precision("float16", initial_scale=2.0 ** 40)
    Autocast("float16").install(monkeypatch)
    batch = next(iter(run.loader.epoch(0)))
    before = run.method.backbone.state_dict()["stem.weight"].numpy()
    assert np.isfinite(float(train_step(run, batch, 0)["loss"]))
    assert run.precision.scale == 2.0 ** 39             # overflow: this step was left out
    assert np.array_equal(run.method.backbone.state_dict()["stem.weight"].numpy(), before)
    run.precision.scale = 1024.0
    np.testing.assert_allclose(losses(run), full, rtol=0.1)
    assert run.precision.good_steps == STEPS


def test_the_rule_is_paddles(monkeypatch):
    autocast = Autocast("bfloat16").install(monkeypatch)
    full = paddle.to_tensor([[1.0 + 2.0 ** -10, 2.0]])
    with paddle.amp.auto_cast(enable=True, dtype="bfloat16", level="O1"):
        product = paddle.matmul(full, full, transpose_y=True)
        assert product.dtype == LOW
        assert product.item() == 5.0                         # both factors and the sum are rounded
        assert (product + full).dtype == FULL
        assert (product + product).dtype == LOW
        assert paddle.nn.functional.softmax(product).dtype == FULL
        assert paddle.nn.functional.layer_norm(product, [1]).dtype == FULL
        with paddle.amp.auto_cast(enable=False):
            assert paddle.matmul(full, full, transpose_y=True).dtype == FULL
        with pytest.raises(AssertionError, match="dtype"):     # what a GPU refuses too
            full.set_value(product.expand([1, 2]))
    assert paddle.matmul(full, full, transpose_y=True).dtype == FULL
    assert autocast.computed["add"] == {LOW, FULL}
