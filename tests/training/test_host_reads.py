"""The host does not wait for the device: no value is read back in a training step, and batches are sent ahead."""
import numpy as np
import paddle
import pytest
from helpers.backbones import SMALL
from helpers.methods import DROP_PATH, METHODS, OPTIMISERS, override, overrides

from passl_mixer.layers.batch_norm import synchronise
from passl_mixer.training.prefetch import make_prefetcher, prefetch
from passl_mixer.training.run import build_run
from passl_mixer.training.step import train_step

READS = ("numpy", "item", "tolist", "cpu", "__float__", "__bool__", "__int__", "__index__", "__array__")
RUNS = {**{name: overrides(name) for name in METHODS}, "supervised": [*overrides("supervised"), DROP_PATH],
        **{name: OPTIMISERS[name] for name in ("lars_clipped", "adamw_clipped", "sgd")},
        "accumulated": ["train.accumulate_steps=2"], "synchronised": [], "recomputed": ["train.recompute=true"]}


@pytest.fixture
def reads(monkeypatch):
    """Names of the reads from device to host since the test began."""
    seen = []

    def counting(name, original):
        def read(self, *arguments, **options):
            seen.append(name)
            return original(self, *arguments, **options)
        return read

    for name in READS:
        monkeypatch.setattr(paddle.Tensor, name, counting(name, getattr(paddle.Tensor, name)))
    return seen


@pytest.mark.parametrize("name", RUNS)
def test_a_step_reads_nothing_back(tiny, reads, name):
    run = build_run(tiny(*RUNS[name]))
    if name == "synchronised":
        synchronise(run.method)
    batches = list(run.loader.epoch(0))
    run.device = "gpu:0"        # where the CPU's look at every loss does not happen
    reads.clear()
    outputs = [train_step(run, batch, step) for step, batch in enumerate(batches[:3])]
    assert reads == []
    assert all(np.isfinite(float(output["loss"])) for output in outputs)


@pytest.mark.parametrize("name", [*RUNS, "swin"])
def test_from_the_second_step_on_nothing_is_copied_from_the_host(tiny, monkeypatch, name):
    """Such a copy makes the host wait; batches come by ``prefetch``."""
    run = build_run(tiny(*RUNS.get(name, [override("model.backbone", {"name": "Swin", **SMALL["Swin"]})])))
    batches = [([paddle.to_tensor(view) for view in views], paddle.to_tensor(labels))
               for views, labels in run.loader.epoch(0)]
    train_step(run, batches[0], 0)
    copied, original = [], paddle.to_tensor
    monkeypatch.setattr(paddle, "to_tensor", lambda *given, **named: copied.append(given) or original(*given, **named))
    train_step(run, batches[1], 1)
    assert copied == []


def test_the_count_sees_the_look_that_the_cpu_takes(tiny, reads):
    run = build_run(tiny())
    batch = next(iter(run.loader.epoch(0)))
    reads.clear()
    train_step(run, batch, 0)
    assert reads.count("__float__") >= 2       # the loss and feature_std


def test_on_the_cpu_the_batches_are_the_loaders(tiny):
    run = build_run(tiny())
    assert make_prefetcher(run.device) is None
    for one, other in zip(run.loader.epoch(0), prefetch(run.loader.epoch(0), make_prefetcher("cpu"))):
        assert all(np.array_equal(a, b) for a, b in zip(one[0], other[0]))
        assert np.array_equal(one[1], other[1])


def test_a_step_takes_a_batch_that_was_moved_already(tiny):
    """Tensors, as they arrive on a GPU, and arrays, as the loader makes them, train the same."""
    found = []
    for move in (lambda array: array, paddle.to_tensor):
        run = build_run(tiny("train.accumulate_steps=2", *RUNS["supervised"]))
        views, labels = next(iter(run.loader.epoch(0)))
        found.append(float(train_step(run, ([move(view) for view in views], move(labels)), 0)["loss"]))
    assert found[0] == found[1]
