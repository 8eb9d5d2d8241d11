"""Shared pieces: a tiny run on synthetic images that takes a second."""
import paddle
import pytest
import yaml
from helpers.commands import Command

from passl_mixer.config import get_config

paddle.set_device("cpu")        # what is tested elsewhere says so: test_gpu.py


@pytest.fixture
def write(tmp_path):
    """Write a file: ``write(text, name="a.yaml") -> Path``."""
    def make(text, name="a.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path
    return make


@pytest.fixture
def tiny(tmp_path):
    """Write a small configuration and read it: ``tiny(*overrides) -> Config``; runs land in ``tmp_path / "run"``."""
    content = {
        "seed": 0, "output_dir": str(tmp_path / "run"),
        "model": {
            "backbone": {"name": "MlpMixer", "img_size": 16, "patch_size": 4, "embed_dim": 16, "num_blocks": 1},
            "head": {"name": "mlp", "layers": 2, "hidden": 16, "out": 8, "norm": "bn"},
            "method": {"name": "simclr", "temperature": 0.2}},
        "data": {
            "dataset": {"name": "synthetic", "num_images": 32, "img_size": 16, "num_classes": 4},
            "train_views": {"name": "simclr", "img_size": 16, "blur_p": 0.0},
            "eval_views": {"name": "center_crop"},
            "batch_size": 8, "num_workers": 2},
        "optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
        "schedule": {"epochs": 2, "warmup_epochs": 1},
        "train": {"device": "cpu", "log_every_steps": 1},
        "evaluate": {"knn": {"k": 3}, "linear": {"epochs": 5}, "few_labels": {"draws": 3}},
    }

    def make(*overrides):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(content))
        return get_config(path, overrides)

    return make


@pytest.fixture
def command(capsys):
    """``passl-mixer`` in this process: ``command("train", "-c", path, options=[...]) -> stdout``; ``refused``."""
    return Command(capsys)
