"""Every shipped configuration builds and takes a step, with its images, batch and Mixers made small."""
from pathlib import Path

import numpy as np
import pytest

from passl_mixer.config import get_config
from passl_mixer.training.run import build_run
from passl_mixer.training.step import train_step

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
EXPECTED = ["quickstart.yaml", "clip/demo.yaml", "clip/vit_b32.yaml", "clip/mlp_mixer_b16.yaml",
            "mlp_mixer/b16.yaml", "mlp_mixer/l16.yaml",
            *(f"mlp_mixer/b16_{m}.yaml" for m in ("simclr", "moco", "byol", "simsiam", "moco_v3", "linear")),
            *(f"{folder}/{short}{end}.yaml" for folder, short in (("conv_mlp", "s"), ("cycle_mlp", "b1"))
              for end in ("", "_simclr", "_moco", "_byol", "_simsiam", "_moco_v3", "_linear")),
            *(f"cifar10/{b}_{m}.yaml" for b in ("mlp_mixer", "conv_mlp", "cycle_mlp", "resnet18")
              for m in ("simclr", "moco", "byol", "simsiam", "moco_v3"))]


def test_all_are_there():
    assert sorted(EXPECTED) == sorted(str(p.relative_to(ROOT / "configs")) for p in CONFIGS)


def shrunk(path: Path) -> list:
    config = get_config(path)
    small = config.data.train_views.img_size > 64
    size = 64 if small else config.data.train_views.img_size
    overrides = [f"data.dataset={{name: synthetic, num_images: 8, img_size: {size}, num_classes: 4}}",
                 f"data.train_views.img_size={size}", "data.batch_size=4", "data.num_workers=0", "train.device=cpu"]
    overrides += [f"data.eval_views={{name: center_crop, img_size: {size}, resize: null}}"] if small else []
    if config.model.method.name == "clip":
        overrides += ["data.dataset={name: embedded_captions}", "data.eval_dataset=null", "model.method.text.width=16",
                      "model.method.text.num_layers=1", "model.method.text.num_heads=2"]
    if config.model.backbone.name.startswith("vit_"):
        overrides += [f"model.backbone.img_size={size}", "model.backbone.embed_dim=32", "model.backbone.num_blocks=1",
                      "model.backbone.num_heads=2"]
    if config.model.backbone.name.startswith("mlp_mixer_") and small:
        overrides += [f"model.backbone.img_size={size}", "model.backbone.embed_dim=32", "model.backbone.num_blocks=1"]
    return overrides


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_shipped_config_takes_a_step(path):
    if path.parent.name == "clip":
        pytest.importorskip("ftfy")
    # the first step of a warm-up has a rate of 0
    run = build_run(get_config(path, [*shrunk(path), "schedule.warmup_epochs=0", "schedule.warmup_steps=0"]))
    before = {n: p.numpy() for n, p in run.method.trainable_parameters()}
    outputs = train_step(run, next(iter(run.loader.epoch(0))), 0)
    assert np.isfinite(float(outputs["loss"]))
    changed = [n for n, p in run.method.trainable_parameters() if not np.array_equal(before[n], p.numpy())]
    assert changed


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_header_says_what_was_measured_and_how_to_run(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("train -c configs/" in line or "train.py -c configs/" in line for line in header)
    assert "ours:" in " ".join(header).lower()
    get_config(path)


def test_output_folders_are_all_different():
    folders = [get_config(p).output_dir for p in CONFIGS]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", ["conv_mlp_nano", "cycle_mlp_nano", "resnet18", "mlp_mixer_nano"])
def test_swapping_the_backbone_is_one_override(name):
    path = ROOT / "configs" / "quickstart.yaml"
    run = build_run(get_config(path, [*shrunk(path), f"model.backbone.name={name}"]))
    assert np.isfinite(float(train_step(run, next(iter(run.loader.epoch(0))), 0)["loss"]))
