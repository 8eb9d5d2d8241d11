"""Files that are whole or not there, and checkpoints that are read without trust."""
import os
import pickle

import numpy as np
import pytest
from safetensors.numpy import save

from passl_mixer import build_backbone, checkpoint
from passl_mixer.errors import BadInput
from passl_mixer.files import write_atomic

TINY = {"name": "MlpMixer", "img_size": 8, "patch_size": 4, "embed_dim": 8, "num_blocks": 1}


def write(path, **meta):
    backbone = build_backbone(TINY)
    arrays = {f"backbone.{k}": v for k, v in checkpoint.arrays_of(backbone).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_checkpoint(path, arrays, {"backbone.norm.weight/moment1_0": np.ones(8, "float32")},
                               {"step": 3, "config": {"model": {"backbone": TINY}}, **meta})
    return arrays


def test_round_trip(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = write(path)
    model, optim, meta = checkpoint.read_checkpoint(path)
    assert all(np.array_equal(model[k], arrays[k]) for k in arrays)
    assert optim["backbone.norm.weight/moment1_0"].tolist() == [1.0] * 8
    assert meta["step"] == 3
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full_disk(_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_who_reads_an_old_file_keeps_it_whole(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, b"old")
    with open(path, "rb") as reader:
        write_atomic(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"


@pytest.mark.parametrize("damaged", [
    lambda whole: whole[:-100], lambda whole: b"\x01" * 500, lambda whole: pickle.dumps({"a": 1}),
    lambda whole: save({"x": np.zeros(3)})], ids=["truncated", "noise", "pickle", "foreign"])
def test_damaged_and_foreign_files_are_named(tmp_path, damaged):
    path = tmp_path / "a.safetensors"
    write(path)
    path.write_bytes(damaged(path.read_bytes()))
    with pytest.raises(BadInput, match=r"a\.safetensors"):
        checkpoint.read_checkpoint(path)


def test_find_checkpoint(tmp_path):
    run = tmp_path / "run"
    for step in (5, 12, 9):
        write(run / "checkpoints" / f"step_{step:07d}.safetensors")
    write(run / "checkpoints" / "best.safetensors")
    assert checkpoint.find_checkpoint(run).name == "step_0000012.safetensors"
    best = run / "checkpoints" / "best.safetensors"
    assert checkpoint.find_checkpoint(best) == best
    checkpoint.prune(run, 2)
    assert [p.name for p in checkpoint.checkpoints_of(run)] == ["step_0000009.safetensors", "step_0000012.safetensors"]
    with pytest.raises(BadInput, match="does not exist"):
        checkpoint.find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="holds no checkpoints"):
        checkpoint.find_checkpoint(tmp_path)


def test_another_model_is_refused_and_nothing_changes(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path)
    other = build_backbone({**TINY, "embed_dim": 16, "num_blocks": 2})
    before = checkpoint.arrays_of(other)
    with pytest.raises(BadInput, match=r"checkpoint of another model: missing: blocks\.1.*expected"):
        checkpoint.load_encoder(path, other)
    assert all(np.array_equal(v, before[k]) for k, v in checkpoint.arrays_of(other).items())
    same = build_backbone(TINY)
    assert checkpoint.load_encoder(path, same)["step"] == 3
