"""Whole runs, as ``passl-mixer train`` makes them, in a process of ours: their steps, and accuracies of checkpoints."""
import tempfile
from pathlib import Path

import yaml

from passl_mixer.build import build_untrained, resolve
from passl_mixer.checkpoint import load_encoder
from passl_mixer.config import get_config
from passl_mixer.evaluation.evaluate import evaluate_features
from passl_mixer.evaluation.features import encoder_features
from passl_mixer.images import as_tensor
from passl_mixer.surgery.macs import count_parameters
from passl_mixer.training.run import build_run
from passl_mixer.training.step import train_step

EPOCHS = 10_000         # of the schedule: more steps than are measured


def run_steps(setup: dict, device: str) -> tuple:
    """``(steps, facts)``: for every name in ``runs`` one optimiser step on a batch that lies on the device.

    Args:
        setup: ``model`` (a configuration's section), ``batch``, ``size`` in pixels, ``runs``: name to overrides of the
            configuration.
        device: "cpu" or "gpu".
    """
    made = {name: _step_of(setup, device, overrides) for name, overrides in setup["runs"].items()}
    return {name: step for name, (step, _) in made.items()}, {name: facts for name, (_, facts) in made.items()}


def _step_of(setup: dict, device: str, overrides) -> tuple:
    batch, size = setup["batch"], setup["size"]
    content = {"model": setup["model"], "schedule": {"epochs": EPOCHS}, "train": {"device": device},
               "data": {"dataset": {"name": "synthetic", "num_images": batch, "img_size": size, "num_classes": 4},
                        "train_views": {"name": "simclr", "img_size": size}, "eval_views": {"name": "center_crop"},
                        "batch_size": batch},
               "optim": {"name": "adamw", "lr": 1e-4}, "evaluate": {"every_epochs": 0, "at_end": []}}
    with tempfile.TemporaryDirectory(prefix="passl_mixer_run_") as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(yaml.safe_dump({**content, "output_dir": folder}), encoding="utf-8")
        run = build_run(get_config(path, overrides))
    views, labels = next(iter(run.loader.epoch(0)))
    batch_there = [as_tensor(view) for view in views], as_tensor(labels)
    done = 0

    def step() -> None:
        nonlocal done
        float(train_step(run, batch_there, done)["loss"])        # waits for a GPU
        done += 1

    return step, {"images": batch, "parameters": count_parameters(run.method.backbone)}


def labels_steps(setup: dict) -> tuple:
    """``(steps, facts)``: "step" answers with the accuracies of checkpoints with one label per class.

    Args:
        setup: ``config`` (file of the run), ``checkpoints``: key to file.
    """
    config = resolve(get_config(setup["config"]))
    method = build_untrained(config)

    def step() -> dict:
        found = {}
        for key, file in setup["checkpoints"].items():
            load_encoder(Path(file), method.encoder)
            found[key] = evaluate_features(config, encoder_features(method.encoder), ["labels_1"])["labels_1"]
        return {"accuracies": found}

    return {"step": step}, {}
