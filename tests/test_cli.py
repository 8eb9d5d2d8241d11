"""The commands as users type them: exit codes, one clear line, nothing overwritten."""
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from passl_mixer import list_backbones
from passl_mixer.cli import main

ROOT = Path(__file__).resolve().parents[1]
# Paddle warns on stderr where the user asks for several OpenMP threads.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
B16 = str(ROOT / "configs" / "mlp_mixer" / "b16.yaml")


@pytest.fixture
def config_file(tiny, tmp_path):
    tiny()
    return str(tmp_path / "tiny.yaml")


def test_train_then_eval_then_resume(config_file, tmp_path, command):
    assert "next        passl-mixer eval -c" in command("train", "-c", config_file)
    measure = ["eval", "-c", tmp_path / "run" / "config.yaml", "--checkpoint", tmp_path / "run"]
    out = command(*measure, "--knn", "--linear")
    assert "pretrained  untrained  raw pixels" in out
    assert "linear probe" in out
    assert "untrained" not in command(*measure, "--no-baselines")
    command("train", "-c", config_file, "--resume")


def test_missing_images_end_in_seconds_with_the_way_out(tmp_path):
    """Without Paddle: the message must not wait for it."""
    command = [sys.executable, "-X", "importtime", str(ROOT / "tools/train.py"), "-c", B16]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert done.returncode == 2
    assert len(said) == 1
    for words in (str(tmp_path / "data" / "imagenet"), "-o data.dataset.root=",
                  "passl-mixer train -c configs/quickstart.yaml"):
        assert words in said[0]
    assert not any(line.endswith(" paddle") for line in done.stderr.splitlines()), "Paddle was imported"
    assert list(tmp_path.iterdir()) == []


def test_tool_trains_on_a_folder_of_images(tmp_path):
    """The command users type, on real JPEG files in class folders, from a checkout."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                assert cv2.imwrite(str(folder / f"{i}.jpg"), rng.integers(0, 256, (40, 50, 3), np.uint8))
    overrides = ["data.dataset.root=images", "model.head.num_classes=2", "data.train_views.img_size=32",
                 "model.backbone={name: MlpMixer, patch_size: 16, embed_dim: 16, num_blocks: 1}",
                 "data.eval_views={name: center_crop, resize: 36, img_size: 32}",
                 "data.batch_size=4", "schedule.epochs=1", "schedule.warmup_epochs=0", "train.log_every_steps=1",
                 "evaluate.every_epochs=1", "evaluate.knn.k=2"]
    command = [sys.executable, str(ROOT / "tools/train.py"), "-c", B16, *(p for o in overrides for p in ("-o", o))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "kNN accuracy" in done.stdout
    assert (tmp_path / "runs" / "mlp_mixer_b16" / "summary.json").exists()


@pytest.mark.parametrize(("overrides", "words"), [
    (["model.backbone.name=mlp_mixer_b61"], "did you mean 'mlp_mixer_b16'?"),
    (["model.backbone.dropath=0.1"], "did you mean 'drop_path_rate'?"),
    (["model.backbone.embed_dim=wide"], "expected an integer"),
    (["model.method.name=simclrr"], "did you mean 'simclr'?"),
    (["data.dataset={name: image_folder, root: nowhere}"], "-o data.dataset.root="),
    (["data.dataset={name: cifar10, root: nowhere}"], "data.dataset.root="),
    (["data.train_views.img_siz=16"], "did you mean 'img_size'?"),
    (["optim.name=adam"], "'optim.lr' is missing"),
    (["optim={name: adam, lr: 0.1}"], "did you mean 'adamw'?"),
    (["data.batch_size=1"], "no negatives"),
])
def test_bad_input_is_one_line_and_exit_code_2(config_file, tmp_path, command, overrides, words):
    out, err = command.ends(2, "train", "-c", config_file, options=overrides)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "run").exists()


def test_unreadable_images_are_named_and_counted_up_to_the_limit(config_file, tmp_path, command):
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(12):
        cv2.imwrite(str(folder / f"good{i}.png"), np.full((20, 20, 3), 20 * i, np.uint8))
    (folder / "bad.png").write_bytes(b"this is text")
    dataset = f"data.dataset={{name: image_folder, root: {folder}, max_bad_images: 1}}"
    _, err = command.ends(0, "train", "-c", config_file, options=[dataset, "data.batch_size=13"])
    assert err.count("bad.png") == 1
    (folder / "worse.png").write_bytes(b"")
    other = [dataset, "data.batch_size=14", f"output_dir={tmp_path / 'other'}"]
    assert "max_bad_images" in command.ends(2, "train", "-c", config_file, options=other)[1]


def test_flat_folder_trains_without_evaluation_and_says_so(config_file, tmp_path, command):
    folder = tmp_path / "flat"
    folder.mkdir()
    for i in range(9):
        cv2.imwrite(str(folder / f"{i}.webp"), np.full((20, 20, 3), 20 * i, np.uint8))
    options = [f"data.dataset={{name: image_folder, root: {folder}}}", "evaluate.every_epochs=1",
               "evaluate.at_end=[knn]"]
    assert "no evaluation: the images have no labels" in command("train", "-c", config_file, options=options)


def test_checkpoint_of_another_model(config_file, tmp_path, command):
    command("train", "-c", config_file)
    measure = ["eval", "-c", config_file, "--checkpoint", tmp_path / "run", "--knn"]
    assert "checkpoint of another model" in command.refused(*measure, options=["model.backbone.embed_dim=8"])


def test_numerical_failure_is_exit_code_3(config_file, command):
    _, err = command.ends(3, "train", "-c", config_file, options=["optim={name: sgd, lr: 1e30}"])
    assert err.startswith("error: ")


def test_debug_shows_the_traceback(config_file):
    command = [sys.executable, "-m", "passl_mixer.cli", "train", "-c", config_file, "-o", "x.y=1", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" in done.stderr
    assert "BadInput" in done.stderr


def test_list_prints_every_backbone(command):
    lines = command("list", "*_nano").splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list_backbones("*_nano")
    assert "did you mean 'resnet18'?" in command.refused("list", "resnt18")


def test_an_output_folder_that_cannot_be_is_one_line(config_file, tmp_path, command):
    (tmp_path / "file").write_text("not a folder")
    error = command.refused("train", "-c", config_file, options=[f"output_dir={tmp_path / 'file' / 'run'}"])
    assert str(tmp_path / "file") in error
    assert (tmp_path / "file").read_text() == "not a folder"


def test_usage_error_is_exit_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train"])
    assert caught.value.code == 2


@pytest.mark.skipif(os.name != "posix", reason="pipes as in a POSIX shell")
def test_list_into_a_closed_pipe():
    done = subprocess.run(f"{sys.executable} tools/list.py 'mlp_mixer_n*' | head -1", shell=True, capture_output=True,
                          text=True, cwd=ROOT, env=ENVIRONMENT)
    assert done.stderr == ""


def test_config_of_the_run_folder_is_enough_to_run_again(config_file, tmp_path, command):
    command("train", "-c", config_file)
    resolved = tmp_path / "run" / "config.yaml"
    assert yaml.safe_load(resolved.read_text())["model"]["method"]["name"] == "simclr"
    command("train", "-c", resolved, options=[f"output_dir={tmp_path / 'again'}"])
    assert (tmp_path / "again" / "checkpoints").is_dir()
