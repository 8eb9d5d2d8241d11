"""Twenty steps of every method from PyTorch write-ups of the official code (``tools/golden``): what ours must repeat.

    python tools/golden_trajectories.py tests/golden/trajectories.npz

Needs PyTorch and NumPy only, nothing of ``passl_mixer``. Everything is computed in float64, from initial weights that
float32 holds. The file records the versions. ``tests/methods/test_trajectories.py`` reads it.
"""
import json
import platform
import sys

import numpy as np
import torch
from golden import optimisers
from golden.methods import METHODS

STEPS, BATCH, IMAGES, SIDE, CLASSES, WORDS, LENGTH = 20, 16, 48, 16, 4, 12, 7
MEAN, STD = 0.5, 0.25
MIXER = {"name": "MlpMixer", "img_size": SIDE, "patch_size": 4, "embed_dim": 16, "num_blocks": 2,
         "mlp_ratio": [0.5, 2.0]}
CONV = {"name": "ConvMLP", "stem_channels": 8, "num_conv_blocks": 1, "embed_dims": [12, 16], "depths": [1, 1],
        "mlp_ratios": [2, 2], "stem_stride": 2}
LARS = {"name": "lars", "momentum": 0.9, "weight_decay": 0.05, "trust_coefficient": 0.2, "lr": 0.03}
SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01, "decay_vectors": True}
ADAMW = {"name": "adamw", "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
WARM = {"warmup_epochs": 4}
SPLITS = {"queue_size": 48, "momentum": 0.9, "bn_splits": 1}

# name: (backbone, head, method, optim, schedule), in the keys of our configuration
TRAJECTORIES = {
    "simclr": (MIXER, {"name": "mlp", "layers": 3, "hidden": 16, "out": 8, "last_norm": True},
               {"name": "simclr", "temperature": 0.5}, {**LARS, "lr_in_velocity": True}, WARM),
    "moco_v1": (CONV, {"name": "mlp", "layers": 1, "hidden": 16, "out": 8, "norm": None},
                {"name": "moco", "temperature": 0.07, **SPLITS}, {**SGD, "lr": 0.03},
                {"decay_epochs": [12, 16], "decay_factor": 0.1}),
    "moco_v2": (MIXER, {"name": "mlp", "layers": 2, "hidden": 16, "out": 8, "norm": None},
                {"name": "moco", "temperature": 0.2, **SPLITS}, {**SGD, "lr": 0.06}, {}),
    "moco_v3": (MIXER, {"name": "mlp", "layers": 3, "hidden": 24, "out": 8, "last_norm": True, "last_affine": False},
                {"name": "moco_v3", "momentum": 0.9, "temperature": 0.2, "freeze_stem": True,
                 "predictor": {"layers": 2, "hidden": 24, "out": 8, "last_norm": True, "last_affine": False}},
                {**ADAMW, "lr": 1e-3, "decay_vectors": True}, WARM),
    "byol": (MIXER, {"name": "mlp", "layers": 2, "hidden": 24, "out": 8, "hidden_bias": True, "last_bias": False},
             {"name": "byol", "momentum": 0.9,
              "predictor": {"layers": 2, "hidden": 24, "out": 8, "hidden_bias": True, "last_bias": False}},
             {**LARS, "lr_in_velocity": False}, WARM),
    "simsiam": (MIXER, {"name": "mlp", "layers": 3, "hidden": 16, "out": 16, "last_norm": True, "last_affine": False},
                {"name": "simsiam", "predictor": {"layers": 2, "hidden": 8, "out": 16}},
                {**SGD, "lr": 0.03, "fixed_lr": ["predictor.*"]}, {}),
    "clip": (MIXER, {"name": "mlp", "layers": 1, "hidden": 16, "out": 8, "norm": None, "last_bias": False},
             {"name": "clip", "temperature_init": 1.0, "max_scale": 1.01,
              "text": {"vocab_size": WORDS + 2, "context_length": LENGTH, "width": 16, "num_layers": 2,
                       "num_heads": 2}},
             {**ADAMW, "lr": 2e-3, "weight_decay": 0.2, "beta2": 0.98, "eps": 1e-6}, {}),
    "supervised": (MIXER, {"name": "linear", "num_classes": CLASSES},
                   {"name": "supervised", "label_smoothing": 0.1, "mixup_alpha": 0.5},
                   {**ADAMW, "lr": 2e-3, "clip_norm": 1.0},
                   {"warmup_steps": 3, "decay": "linear", "min_lr": 1e-5}),
}


def data(rng):
    """Two views of every image, their classes and captions, and what every step draws of them."""
    labels = rng.integers(0, CLASSES, IMAGES)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = np.sin(2 * np.pi * (np.arange(1, CLASSES + 1)[:, None, None] * x + y))[labels, None, :, :, None]
    shades = rng.uniform(0.3, 0.7, [IMAGES, 1, 1, 1, 3])
    views = shades + 0.2 * rng.uniform(0.5, 1, [IMAGES, 2, 1, 1, 3]) * waves
    views = views + rng.normal(0, 0.06, [IMAGES, 2, SIDE, SIDE, 3])
    ids = rng.integers(0, WORDS, [IMAGES, LENGTH])
    ids[:, 0], ids[:, 1] = WORDS, labels                # the beginning, then a word for the class
    ends = rng.integers(3, LENGTH, IMAGES)
    ids[np.arange(IMAGES), ends] = WORDS + 1
    ids = np.where(np.arange(LENGTH) > ends[:, None], 0, ids)
    return {"views": np.round(255 * views.clip(0, 1)).astype("uint8"), "labels": labels, "ids": ids,
            "batches": np.stack([rng.permutation(IMAGES)[:BATCH] for _ in range(STEPS)]),
            "weights": rng.beta(0.5, 0.5, STEPS).astype("float32"),
            "orders": np.stack([rng.permutation(BATCH) for _ in range(STEPS)])}


def batch_of(found, step):
    """What the methods take."""
    rows = found["batches"][step]
    views = (found["views"][rows].astype("float64") / 255 - MEAN) / STD
    return (*(torch.tensor(views[:, i]).permute(0, 3, 1, 2) for i in range(2)), torch.tensor(found["labels"][rows]),
            torch.tensor(found["ids"][rows]), float(found["weights"][step]), torch.tensor(found["orders"][step]))


def state(method):
    """``{name: array}`` in float32, of parameters and buffers; PyTorch's joint attention weights under our name."""
    found = {name: value for name, value in method.state_dict().items() if not name.endswith("num_batches_tracked")}
    renamed = {"attention.in_proj_": "attention.qkv.", "attention.out_proj": "attention.proj"}
    for old, new in renamed.items():
        found = {name.replace(old, new): value for name, value in found.items()}
    return {name: value.numpy().astype("float32") for name, value in found.items()}


def packed(prefix, arrays):
    """Many small arrays as one, and their names and shapes."""
    listed = [[name, list(value.shape)] for name, value in arrays.items()]
    return {f"{prefix}": np.concatenate([value.ravel() for value in arrays.values()]), f"{prefix}_names":
            json.dumps(listed)}


def trajectory(name, found):
    """``{key: array}`` of one method: its configuration, weights before and after, and the loss of every step."""
    backbone, head, method, optim, schedule = TRAJECTORIES[name]
    config = {"model": {"backbone": backbone, "head": head, "method": method}, "optim": optim,
              "schedule": {"epochs": STEPS, **schedule}}
    torch.manual_seed(7 + list(TRAJECTORIES).index(name))
    net = METHODS[method["name"]](config["model"], STEPS)
    with torch.no_grad():
        for value in net.state_dict().values():
            value.copy_(value.float())                  # what a float32 run can begin with
    named = [(key, p) for key, p in net.named_parameters() if p.requires_grad]
    optimiser = optimisers.build(optim, named)
    before, losses = state(net), []
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = optim["lr"] if group["fixed"] else optimisers.rate(schedule, optim["lr"], step, STEPS)
        loss = net.loss(batch_of(found, step), step)
        optimiser.zero_grad()
        loss.backward()
        if optim.get("clip_norm"):
            optimisers.clip([p for _, p in named], optim["clip_norm"])
        optimiser.step()
        net.after(step)
        losses.append(loss.item())
    net.settle()
    print(f"{name:11s}", " ".join(f"{value:.4f}" for value in losses), flush=True)
    return {f"{name}/config": json.dumps(config), f"{name}/losses": np.array(losses),
            **packed(f"{name}/initial", before), **packed(f"{name}/final", state(net))}


def main(path):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    found = data(np.random.default_rng(7))
    arrays = {key: value.astype("uint8") if value.dtype == "int64" else value for key, value in found.items()}
    for name in TRAJECTORIES:
        arrays.update(trajectory(name, found))
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    np.savez_compressed(path, mean=MEAN, std=STD, versions=json.dumps(versions), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
