"""``passl-mixer convert`` as users type it, there and back."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.arrays import assert_same
from safetensors.numpy import load_file, save_file

from passl_mixer.backbones import build_backbone
from passl_mixer.checkpoint import arrays_of, load_encoder
from passl_mixer.weights import convert_state_dict

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def reference(tmp_path):
    with np.load(ROOT / "tests/golden/mlp_mixer.npz", allow_pickle=False) as file:
        arrays = {name[6:]: file[name] for name in file.files if name.startswith("state/")}
    save_file(arrays, tmp_path / "timm.safetensors")
    return arrays


def test_there_and_back(tmp_path, reference, command):
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    theirs = tmp_path / "timm.safetensors"
    assert "mlp_mixer (timm)" in command("convert", theirs, ours, "--family", "mlp_mixer", "--source", "timm")
    command("convert", ours, back, "--family", "mlp_mixer", "--to", "timm")
    assert_same(load_file(back), reference)
    command("convert", ours, tmp_path / "back.npz", "--family", "mlp_mixer", "--to", "google")
    with np.load(tmp_path / "back.npz") as file:
        assert "MixerBlock_1/token_mixing/Dense_0/kernel" in file.files


def test_what_was_written_loads(tmp_path, reference, command):
    ours = tmp_path / "ours.safetensors"
    command("convert", tmp_path / "timm.safetensors", ours)
    cfg = {"name": "MlpMixer", "img_size": 32, "patch_size": 8, "embed_dim": 24, "num_blocks": 2}
    expected = convert_state_dict(reference, family="mlp_mixer", source="timm")["backbone"]
    loaded = build_backbone({**cfg, "pretrained": str(ours)})
    other = build_backbone(cfg)
    assert load_encoder(ours, other)["converted_from"]["source"] == "timm"
    for backbone in (loaded, other):
        assert_same(arrays_of(backbone), expected)


def test_faults_are_one_line_and_nothing_is_overwritten(tmp_path, reference, command):
    theirs, ours = tmp_path / "timm.safetensors", tmp_path / "ours.safetensors"
    for words, arguments in {
            "pass family='mlp_mixer', source='timm'": (theirs, ours, "--family", "resmlp", "--source", "timm"),
            "--family and --source go together": (theirs, ours, "--family", "mlp_mixer"),
            "ends with .safetensors": (theirs, tmp_path / "ours.pth"),
            "exists; remove it": (theirs, theirs),
            "--to wants --family": (theirs, ours, "--to", "timm"),
            "is not a checkpoint of ours": (theirs, ours, "--to", "timm", "--family", "mlp_mixer"),
            "is not a file": (tmp_path / "none.npz", ours)}.items():
        assert words in command.refused("convert", *arguments)
        assert not ours.exists()


def test_tool_runs_without_paddle(tmp_path, reference):
    del reference["head.bias"], reference["head.weight"]
    save_file(reference, tmp_path / "timm.safetensors")
    command = [sys.executable, "-X", "importtime", str(ROOT / "tools/convert.py"), "timm.safetensors",
               "ours.safetensors", "--family", "mlp_mixer", "--source", "timm", "--allow", "head.*"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "0 of the classifier" in done.stdout
    assert not any(line.endswith(" paddle") for line in done.stderr.splitlines()), "Paddle was imported"
