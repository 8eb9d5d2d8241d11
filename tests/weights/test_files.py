"""Weight files of every format, written here byte by byte; hostile, damaged and foreign ones."""
import collections
import pickle
import struct
import zipfile

import numpy as np
import paddle
import pytest
from helpers.arrays import assert_same
from helpers.data import Hostile
from helpers.torch_bytes import KINDS, Parameter, Storage, Tensor, save_legacy, save_zip
from safetensors.numpy import save_file

from passl_mixer.checkpoint import save_checkpoint
from passl_mixer.errors import BadInput
from passl_mixer.weights import read_arrays


def save_paddle(path, tree):
    path.write_bytes(pickle.dumps(tree, 4))
    return path


SAVERS = {"zip.pth": save_zip, "legacy.pth.tar": save_legacy}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {"a.weight": rng.normal(size=(4, 3)).astype(np.float32), "a.bias": np.zeros(0, np.float32),
            "scalar": np.array(7, np.int64), "half": rng.normal(size=5).astype(np.float16)}


@pytest.mark.parametrize("file", SAVERS)
@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"model": d}, lambda d: {"epoch": 3, "state_dict": d},
                                  lambda d: {"model": {"x": Tensor([1.0])}, "model_ema": d},
                                  lambda d: {"state_dict": {f"module.{k}": v for k, v in d.items()}}],
                         ids=["bare", "model", "state_dict", "ema", "module"])
def test_torch_files(tmp_path, arrays, file, wrap):
    tree = wrap(collections.OrderedDict((name, Tensor(value)) for name, value in arrays.items()))
    assert_same(read_arrays(SAVERS[file](tmp_path / file, tree)), arrays)


@pytest.mark.parametrize("file", SAVERS)
def test_every_type_of_torch(tmp_path, file):
    values = {kind: np.array([[0, 1], [1, 3]]).astype(kind) for kind in KINDS}
    got = read_arrays(SAVERS[file](tmp_path / file, {kind: Tensor(value) for kind, value in values.items()}))
    assert_same(got, values)


@pytest.mark.parametrize("file", SAVERS)
def test_bfloat16_is_widened_exactly(tmp_path, file):
    exact = np.array([1.0, -2.5, 3e38, 0.0], np.float32)
    bits = (exact.view(np.uint32) >> 16).astype(np.uint16)
    expected = (bits.astype(np.uint32) << 16).view(np.float32)
    path = SAVERS[file](tmp_path / file, {"w": Tensor(bits, "BFloat16Storage")})
    assert_same(read_arrays(path), {"w": expected})
    np.testing.assert_array_equal(expected[[0, 1, 3]], exact[[0, 1, 3]])


@pytest.mark.parametrize("file", SAVERS)
def test_views_share_a_storage(tmp_path, file):
    base = np.arange(12, dtype=np.float32)
    storage = Storage(base)
    tree = {"turned": Parameter(Tensor(np.zeros((4, 3), np.float32), storage=storage, strides=(1, 4))),
            "part": Tensor(np.zeros(5, np.float32), storage=storage, offset=7)}
    assert_same(read_arrays(SAVERS[file](tmp_path / file, tree)), {"turned": base.reshape(3, 4).T, "part": base[7:]})


@pytest.mark.parametrize("file", SAVERS)
@pytest.mark.parametrize(("shape", "strides", "offset"), [
    ((5,), (1,), 8), ((2,), (100,), 0), ((1000,), (0,), 0), ((2,), (-1,), 1), ((2,), (1, 1), 0), ((1,), (1,), 12)])
def test_a_tensor_cannot_reach_outside_its_storage(tmp_path, file, shape, strides, offset):
    tensor = Tensor(np.zeros(1, np.float32), storage=Storage(np.arange(12, dtype=np.float32)))
    tensor.part = offset, shape, strides
    with pytest.raises(BadInput, match="storage"):
        read_arrays(SAVERS[file](tmp_path / file, {"w": tensor}))


class Changed:
    """A tensor whose stand-in the file tries to change."""

    def __reduce__(self):
        return (*Tensor(np.zeros(1, np.float32)).__reduce__(), {"part": 1})


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_paddle], ids=["zip", "legacy", "pdparams"])
def test_hostile_files_run_nothing_and_are_named(tmp_path, save):
    import os
    target = tmp_path / "ran"
    attacks = {r"(posix|os|nt)\.system": Hostile(os.system, f"touch {target}"),
               r"(builtins|__builtin__)\.eval": Hostile(eval, f"open({str(target)!r}, 'w')"),
               r"(builtins|__builtin__)\.getattr": {"a": [Hostile(getattr, Hostile(eval, "1"), "real")]},
               r"(io|_io|builtins|__builtin__)\.open": {"state_dict": {"w": (1, Hostile(open, str(target), "w"))}}}
    for name, attack in attacks.items():
        path = save(tmp_path / "weights.pth", {"model": attack})
        with pytest.raises(BadInput, match=rf"weights\.pth .*it names {name}; nothing of it was run"):
            read_arrays(path)
    assert not target.exists()


@pytest.mark.parametrize("save", [save_zip, save_legacy])
def test_a_file_cannot_change_what_tensors_are_made_of(tmp_path, save):
    with pytest.raises(BadInput, match="it changes a tensor"):
        read_arrays(save(tmp_path / "w.pth", {"w": Changed()}))


def test_training_arguments_are_dropped(tmp_path, arrays):
    import argparse
    tree = {"model": {name: Tensor(value) for name, value in arrays.items()}, "args": argparse.Namespace(lr=1.0)}
    assert_same(read_arrays(save_zip(tmp_path / "w.pth", tree)), arrays)


@pytest.mark.parametrize("protocol", [2, 4])
def test_files_of_paddle(tmp_path, protocol):
    layer = paddle.nn.Linear(3, 2)
    expected = {name: value.numpy() for name, value in layer.state_dict().items()}
    path = str(tmp_path / "w.pdparams")
    for tree in (layer.state_dict(), {"state_dict": layer.state_dict(), "epoch": 2}):
        paddle.save(tree, path, protocol=protocol)
        assert_same(read_arrays(path), expected)
    paddle.save({"w": paddle.to_tensor([1.5, -2.0]).astype("bfloat16")}, path, protocol=protocol)
    assert_same(read_arrays(path), {"w": np.array([1.5, -2.0], np.float32)})


def test_pickled_arrays_and_pairs(tmp_path, arrays):
    assert_same(read_arrays(save_paddle(tmp_path / "w.pdparams", arrays)), arrays)
    pairs = {name: (f"linear_{name}", value) for name, value in arrays.items()}
    assert_same(read_arrays(save_paddle(tmp_path / "w.pdparams", {"model": pairs})), arrays)


def test_npz_and_safetensors(tmp_path, arrays):
    np.savez(tmp_path / "w.npz", **arrays)
    assert_same(read_arrays(tmp_path / "w.npz"), arrays)
    np.savez_compressed(tmp_path / "w.npz", **{f"params/{name}/kernel": value for name, value in arrays.items()},
                        **{"opt/step": np.array(3)})
    assert_same(read_arrays(tmp_path / "w.npz"), {f"{name}/kernel": value for name, value in arrays.items()})
    save_file(arrays, tmp_path / "w.safetensors")
    got = read_arrays(tmp_path / "w.safetensors")
    assert_same({name: got[name] for name in arrays}, arrays)


def test_bfloat16_of_safetensors(tmp_path):
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    header += b" " * (-len(header) % 8)
    content = struct.pack("<Q", len(header)) + header + np.array([0x3F80, 0xC000], "<u2").tobytes()
    (tmp_path / "w.safetensors").write_bytes(content)
    assert_same(read_arrays(tmp_path / "w.safetensors"), {"w": np.array([1.0, -2.0], np.float32)})


def test_our_checkpoint_gives_its_model_only(tmp_path, arrays):
    save_checkpoint(tmp_path / "step_1.safetensors", {"backbone.w": arrays["a.weight"]},
                    {"backbone.w/moment1": arrays["a.weight"]}, {"step": 1})
    assert_same(read_arrays(tmp_path / "step_1.safetensors"), {"backbone.w": arrays["a.weight"]})


def _npz(path, tree):
    np.savez(path.with_suffix(".npz"), **tree)
    return path.with_suffix(".npz")


def _safetensors(path, tree):
    save_file(tree, path)
    return path


@pytest.mark.parametrize("save", [save_zip, save_legacy, save_paddle, _npz, _safetensors],
                         ids=lambda function: function.__name__)
def test_truncated_files_are_named(tmp_path, save):
    value = np.arange(300, dtype=np.float32)
    path = save(tmp_path / "w.bin", {"w": Tensor(value) if save in (save_zip, save_legacy) else value})
    whole = path.read_bytes()
    for kept in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:kept])
        with pytest.raises(BadInput, match=path.name.replace(".", r"\.")):
            read_arrays(path)


def test_foreign_files_are_named(tmp_path):
    path = tmp_path / "w.pth"
    for content in (b"", b"<html>not found</html>", b"\x80\x04]\x94.", b"{}", pickle.dumps([1, 2]),
                    pickle.dumps({"epoch": 3}), pickle.dumps({"w": np.zeros(2), "arch": "x"})):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"w\.pth"):
            read_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BadInput, match=r"w\.pth is a zip file of neither"):
        read_arrays(path)
    np.savez(tmp_path / "w.npz", w=np.array([object()], dtype=object))
    with pytest.raises(BadInput, match=r"w\.npz"):
        read_arrays(tmp_path / "w.npz")
    with pytest.raises(BadInput, match="is not a file"):
        read_arrays(tmp_path / "none.npz")
