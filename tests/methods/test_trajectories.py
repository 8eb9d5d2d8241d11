"""Twenty steps of every method against PyTorch write-ups of the official code (``tools/golden_trajectories.py``)."""
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from paddle import nn

from passl_mixer.config import get_config
from passl_mixer.data import build_views
from passl_mixer.images import to_images
from passl_mixer.methods import build_method
from passl_mixer.training.optim import build_optimizer
from passl_mixer.training.precision import Precision
from passl_mixer.training.run import Run
from passl_mixer.training.step import lr_at, train_step

GOLDEN = Path(__file__).parents[1] / "golden" / "trajectories.npz"
NAMES = ["simclr", "moco_v1", "moco_v2", "moco_v3", "byol", "simsiam", "clip"]
# Their gradient is 0, as what they add is taken away again: by every LayerNorm that follows (a token's constant), by
# the softmax (the keys' part) or by BatchNorm, in whose mean it stays. Adam makes whole steps out of rounding there.
NOISE = {"clip": ("token_mlp.fc2.bias", "attention.qkv.bias"), "supervised": ("token_mlp.fc2.bias",),
         "moco_v3": ("token_mlp.fc2.bias", "backbone.norm.bias", "head.mlp.1._mean")}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def arrays_of(golden, key: str) -> dict:
    """``{name: array}`` of what was packed into one array."""
    names = json.loads(str(golden[f"{key}_names"]))
    parts = np.split(golden[key], np.cumsum([int(np.prod(shape)) for _, shape in names])[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(names, parts)}


def in_our_layout(method, arrays: dict) -> dict:
    """PyTorch's linear weights [out, in] turned, its running statistics under Paddle's names."""
    turned = {f"{name}.weight" for name, part in method.named_sublayers() if isinstance(part, nn.Linear)}
    renamed = {"running_mean": "_mean", "running_var": "_variance"}
    found = {}
    for name, value in arrays.items():
        owner, _, last = name.rpartition(".")
        found[f"{owner}.{renamed[last]}" if last in renamed else name] = value.T if name in turned else value
    return found


def start(golden, name: str, folder: Path) -> Run:
    """The run of one trajectory before its first step, of the parts that ``build`` would put together."""
    described = json.loads(str(golden[f"{name}/config"]))
    steps, rows = golden["batches"].shape
    views = {"name": "center_crop", "img_size": golden["views"].shape[2], "mean": float(golden["mean"]),
             "std": float(golden["std"])}
    path = folder / "trajectory.yaml"
    path.write_text(yaml.safe_dump({**described, "output_dir": str(folder), "data": {
        "dataset": {"name": "synthetic"}, "train_views": views, "eval_views": views, "batch_size": rows}}))
    config = get_config(path)
    method = build_method(config.model)
    options = {key: value for key, value in config.optim.items() if key not in ("lr", "base_batch_size")}
    load(method, in_our_layout(method, arrays_of(golden, f"{name}/initial")))
    return Run(config=config, device="cpu", method=method, precision=Precision(None), loader=None,
               optimizer=build_optimizer(options, method.trainable_parameters()), views=build_views(views),
               steps_per_epoch=1, total_steps=steps, last_step=steps, peak_lr=config.optim.lr, skip_eval_reason="")


def load(method, arrays: dict) -> None:
    """Every parameter and buffer but the queue's pointer, by name."""
    state = method.state_dict()
    assert set(state) - set(arrays) <= {"queue_pointer"}
    # PyTorch's norm without shift has one, of zeros
    assert all(not arrays[name].any() for name in set(arrays) - set(state))
    for name in set(state) & set(arrays):
        assert list(state[name].shape) == list(arrays[name].shape), name
        state[name].set_value(paddle.to_tensor(arrays[name]))


def batch_of(golden, run: Run, step: int) -> tuple:
    """What the loader gives: uint8 views, and class indices or token ids."""
    rows = golden["batches"][step]
    views = [golden["views"][rows, view] for view in range(run.method.num_views)]
    return views, golden["ids" if run.config.model.method.name == "clip" else "labels"][rows].astype("int64")


def assert_is_golden(golden, run: Run, name: str, losses: list) -> None:
    """Losses to 1e-5; the path of every parameter, from its first value to its last, to 1e-3.

    A path counts as a hundredth of the longest at least: what has no gradient moves by rounding.
    """
    expected = golden[f"{name}/losses"]
    first, last = (in_our_layout(run.method, arrays_of(golden, f"{name}/{when}")) for when in ("initial", "final"))
    state, off = run.method.state_dict(), {}
    paths = {key: np.abs(last[key] - first[key]).max() for key in set(state) & set(last)}
    longest = max(paths[key] for key, _ in run.method.trainable_parameters())
    for key, path in paths.items():
        # Paddle's variance is the batch's, PyTorch's an estimate of all images'
        if not key.endswith((*NOISE.get(name, ()), "_variance")):
            off[key] = float(np.abs(state[key].numpy() - last[key]).max() / max(path, longest / 100))
    print(f"{name}: losses {np.abs(np.array(losses) / expected - 1).max():.1e}, parameters {max(off.values()):.1e}")
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert max(off.values()) < 1e-3, sorted(off.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize("name", NAMES)
def test_a_trajectory_is_the_official_codes(golden, tmp_path, name):
    run = start(golden, name, tmp_path)
    losses = [float(train_step(run, batch_of(golden, run, i), i)["loss"]) for i in range(run.total_steps)]
    assert_is_golden(golden, run, name, losses)


def test_the_supervised_trajectory_is_the_official_codes(golden, tmp_path):
    """As ``train_step``, but for what mixup draws, which is given."""
    run, losses = start(golden, "supervised", tmp_path), []
    for step in range(run.total_steps):
        views, labels = batch_of(golden, run, step)
        images = to_images(views[0], run.views.mean, run.views.std)
        weight, order = golden["weights"][step:step + 1], golden["orders"][step].astype("int64")
        loss = run.method.classify(images, *map(paddle.to_tensor, (labels, weight, order)))["loss"]
        loss.backward()
        run.optimizer.step(lr_at(run, step))
        run.optimizer.clear_grad()
        losses.append(float(loss))
    assert_is_golden(golden, run, "supervised", losses)


@pytest.mark.slow
def test_the_same_without_native_kernels():
    """The tests above in a process that computes with Paddle's operators alone."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", __file__, "-k", "official_codes"],
        env={**os.environ, "PASSL_MIXER_NATIVE": "0"}, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert f"{len(NAMES) + 1} passed" in done.stdout
