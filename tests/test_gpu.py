"""What a device with memory and streams of its own can show: ``python -m pytest tests/test_gpu.py``, on a GPU.

Where there is none, ``test_plugin_device.py`` runs what is not CUDA's own on the device of ``plugin_device``. Nothing
here has been run on a GPU yet; a failure is news about the package, not about the machine.
"""
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import plugin_device
import pytest
from helpers.backbones import SMALL, small
from helpers.gradients import assert_close, run_with_gradients
from helpers.methods import overrides
from helpers.runs import batches_of

from passl_mixer import runtime
from passl_mixer.autocast import autocast_dtype
from passl_mixer.data import Loader, build_dataset, build_views
from passl_mixer.data.dali import DaliLoader
from passl_mixer.errors import BadInput
from passl_mixer.layers.data_format import set_data_format
from passl_mixer.ops import products
from passl_mixer.training.adamw import FusedAdamW
from passl_mixer.training.cuda_graph import WARM_UP
from passl_mixer.training.prefetch import CopyStream, make_prefetcher, prefetch
from passl_mixer.training.run import build_run
from passl_mixer.training.step import train_step

HAS_CUDA = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
HAS_PLUGIN = plugin_device.NAME in (paddle.device.get_available_custom_device() or ())
DEVICE = "gpu" if HAS_CUDA else plugin_device.NAME
pytestmark = pytest.mark.skipif(not (HAS_CUDA or HAS_PLUGIN), reason="no GPU here")
only_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs CUDA")
ROOT = Path(__file__).resolve().parents[1]
DETERMINISTIC = ("simclr", "byol", "simsiam")
METHODS = ["simclr", "moco_split", "byol", "simsiam", "moco_v3", "supervised"]


@pytest.fixture(autouse=True)
def back_to_the_cpu():
    yield
    paddle.set_device("cpu")


def losses(tiny, *overrides, count: int = 8, weights=None):
    run = build_run(tiny("schedule.epochs=9", f"train.device={DEVICE}", *overrides))
    if weights is not None:
        run.method.set_state_dict(weights)
    batches = zip(range(count), prefetch(batches_of(run), make_prefetcher(run.device)))
    return run, [float(train_step(run, batch, step)["loss"]) for step, batch in batches]


def assert_same_to_rounding(results: list, expected: list) -> None:
    """A gradient that is zero but for rounding, as of a bias before a norm, is held to the largest one."""
    largest = max(np.abs(gradient).max() for gradient in expected[1:] if gradient is not None)
    assert_close(results, expected, 1e-3, 1e-3 * largest)


@pytest.mark.parametrize("name", SMALL)
def test_every_family_computes_on_a_gpu_what_it_computes_on_the_cpu(name):
    images = np.random.default_rng(0).standard_normal([2, 3, 16, 16]).astype("float32")
    results, weights = [], None
    for device in (DEVICE, "cpu"):
        paddle.set_device(device)
        backbone = small(name)
        if weights is None:
            weights = {n: v.numpy() for n, v in backbone.state_dict().items()}
        backbone.set_state_dict({n: paddle.to_tensor(v) for n, v in weights.items()})
        results.append(run_with_gradients(backbone, [images], parameters=backbone.parameters()))
    assert_same_to_rounding(*results)


@pytest.mark.parametrize("name", METHODS)
def test_runs_in_float32_have_the_losses_of_the_cpu(tiny, name):
    weights = {key: value.numpy() for key, value in build_run(tiny(*overrides(name))).method.state_dict().items()}
    _, expected = losses(tiny, *overrides(name), "train.device=cpu", weights=weights)
    _, found = losses(tiny, *overrides(name), weights=weights)
    if HAS_CUDA and name not in DETERMINISTIC:      # a GPU draws other numbers
        assert np.isfinite(found).all()
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@only_cuda
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_keeps_float32_parameters(tiny, precision):
    run, found = losses(tiny, f"train.precision={precision}")
    _, full = losses(tiny)
    np.testing.assert_allclose(found, full, rtol=0.05)
    assert all(p.dtype == paddle.float32 for p in run.method.parameters())


@only_cuda
@pytest.mark.parametrize("name", METHODS)
def test_cuda_graphs_train_as_single_launches_do(tiny, name):
    _, launched = losses(tiny, *overrides(name))
    run, recorded = losses(tiny, "train.cuda_graphs=true", *overrides(name))
    assert run.graphed.passes > WARM_UP
    assert run.graphed.keeps_gradients
    np.testing.assert_allclose(recorded, launched, rtol=1e-4)


@pytest.mark.skipif(not HAS_CUDA and paddle.__version__ < "3", reason="needs a plug-in with operators for programs")
@pytest.mark.filterwarnings("ignore:Tensor do not have 'place':UserWarning")
def test_a_compiled_backbone_trains_as_an_eager_one_does(tiny):
    common = ["optim={name: sgd, lr: 0.01}"]
    _, eager = losses(tiny, *common)
    _, compiled = losses(tiny, *common, "train.compile=true")
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)


@pytest.mark.parametrize("name", ["ResNet", "ConvMixer", "ConvMLP"])
def test_a_network_turned_channels_last_computes_the_same(name):
    paddle.set_device(DEVICE)
    images = np.random.default_rng(0).standard_normal([4, 3, 32, 32]).astype("float32")
    results = []
    for turned in (True, False):
        backbone = small(name)
        if turned:
            set_data_format(backbone, "NHWC")
        results.append(run_with_gradients(backbone, [images], frozen=(0,), parameters=backbone.parameters()))
    assert_same_to_rounding(*results)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=only_cuda)])
def test_a_run_turned_channels_last_has_the_same_losses(tiny, precision):
    common = [f"train.precision={precision}", "optim={name: sgd, lr: 0.01}",
              "model.backbone={name: ConvMixer, embed_dim: 16, num_blocks: 2, kernel_size: 3, patch_size: 4}"]
    np.testing.assert_allclose(losses(tiny, *common, "train.channels_last=true")[1], losses(tiny, *common)[1],
                               rtol=1e-3 if precision == "fp32" else 0.05)


@pytest.mark.skipif(HAS_CUDA, reason="for the plug-in")
def test_devices_of_a_plugin_are_chosen_by_name_and_by_auto():
    assert runtime.select_device("cpu") == "cpu"
    for name in (DEVICE, f"{DEVICE}:0"):
        assert runtime.select_device(name) == name
        assert paddle.get_device() == f"{DEVICE}:0"
    assert runtime.select_device("auto") == DEVICE
    assert autocast_dtype("bf16", DEVICE) is None
    with pytest.raises(BadInput, match=f"sees 1 {DEVICE} device"):
        runtime.select_device(f"{DEVICE}:1")
    with pytest.raises(BadInput, match=f"expected auto, cpu, gpu or gpu:N, {DEVICE} or {DEVICE}:N"):
        runtime.select_device(f"{DEVICE}:first")


def test_adamw_is_the_fused_one(tiny):
    run, _ = losses(tiny, count=1)
    assert isinstance(run.optimizer._rules[0][0], FusedAdamW)


def test_the_fused_product_is_the_plain_one():
    paddle.set_device(DEVICE)
    for one, other in zip(products._trial(products.fused_linear()), products._trial(paddle.nn.functional.linear)):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-3)


def side_stream() -> CopyStream:
    """What copies batches: the mover of a GPU; on the plug-in the same with the plug-in's own copies."""
    if HAS_CUDA:
        return make_prefetcher("gpu:0")
    place = paddle.CustomPlace(DEVICE, 0)
    paddle.rand([1])            # makes the stream of the computation, the first one, on which nothing is late
    return CopyStream(lambda array: paddle.to_tensor(array, place=paddle.CPUPlace())._copy_to(place, False))


def sums_of_batches(side: CopyStream) -> tuple:
    """Sums of twenty batches as they arrive, while the device computes, and what they are."""
    rng = np.random.default_rng(0)
    batches = [([rng.integers(0, 255, [64, 64, 64, 3], dtype=np.uint8)], np.full([64], n)) for n in range(20)]
    busy, found = paddle.rand([512, 512]), []
    for views, labels in prefetch(batches, side):
        for _ in range(5):
            busy = paddle.tanh(busy @ busy)
        found.append(views[0].astype("int64").sum() + labels.sum())
    return [int(total) for total in found], [int(views[0].sum(dtype=np.int64)) + int(labels.sum())
                                             for views, labels in batches]


def test_batches_arrive_while_it_computes():
    paddle.set_device(DEVICE)
    found, expected = sums_of_batches(side_stream())
    assert found == expected


@pytest.mark.skipif(HAS_CUDA, reason="a GPU may be quick enough")
def test_batches_that_nobody_waits_for_do_not_arrive():
    paddle.set_device(DEVICE)
    side = side_stream()
    side.finish = lambda moved, there: moved
    found, expected = sums_of_batches(side)
    assert found != expected


@only_cuda
@pytest.mark.skipif(importlib.util.find_spec("nvidia.dali") is None if importlib.util.find_spec("nvidia") else True,
                    reason="needs NVIDIA DALI")
def test_dali_hands_its_views_over_on_the_gpu(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        coarse = rng.integers(0, 256, [8, 8, 3], dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "ab"[i % 2] / f"{i}.jpg"), cv2.resize(coarse, (160, 120)))
    dataset = build_dataset({"name": "image_folder", "root": str(tmp_path), "decode_reduced": False})
    views = build_views({"name": "inception", "img_size": 48})
    ours = Loader(dataset, views, batch_size=4, seed=3, num_workers=2, shuffle=True, drop_last=True)
    device = runtime.select_device("gpu")
    theirs = prefetch(DaliLoader(ours, device_id=0).epoch(0), make_prefetcher(device))
    for (one, labels), (other, there) in zip(ours.epoch(0), theirs):
        assert other[0].place.is_gpu_place()
        assert np.array_equal(there.numpy(), labels)
        assert np.abs(one[0].astype(int) - other[0].numpy()).mean() < 2


@only_cuda
def test_the_benchmark_tells_the_utilisation(tmp_path):
    done = subprocess.run(
        [sys.executable, "tools/benchmark.py", "backbones", "--backbones", "mlp_mixer_nano", "--device", "gpu",
         "--repeats", "2", "--json", str(tmp_path / "r.json")], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "r.json").read_text().splitlines()]
    assert any("peak" in json.dumps(record) for record in records)
