"""Image folders written with OpenCV and read back: layouts, formats, bad files, messages."""
import cv2
import numpy as np
import pytest
from helpers.data import loader_of, with_exif

from passl_mixer.data import build_dataset, check_dataset, rng
from passl_mixer.errors import BadInput


def write(path, image=None, value=120):
    """Write RGB pixels to a file whose ending names the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((6, 8, 3), value, np.uint8) if image is None else image
    image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(path.suffix.lower(), image)
    path.write_bytes(data.tobytes())


def folder(root, split="train", **options):
    return build_dataset({"name": "image_folder", "root": str(root), **options}, split)


def names(dataset):
    return [p.split("/")[-1] for p in dataset._paths]


@pytest.mark.parametrize(("name", "tolerance"), [("a.png", 0), ("a.PNG", 0), ("a.bmp", 0), ("a.jpg", 12),
                                                 ("a.JPEG", 12), ("a.webp", 12)])
def test_formats_come_back_as_rgb(tmp_path, name, tolerance):
    image = np.zeros((32, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = (200, 30, 60), (20, 80, 160)
    write(tmp_path / name, image)
    got = folder(tmp_path).image(0)
    assert got.dtype == np.uint8
    assert np.abs(got[:, 4:16].astype(int) - image[:, 4:16]).max() <= tolerance
    assert np.abs(got[:, 24:36].astype(int) - image[:, 24:36]).max() <= tolerance


def test_gray_sixteen_bit_and_alpha_become_three_channels_of_eight_bits(tmp_path):
    gray = rng(0, 0, 0).integers(0, 256, (5, 7), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), gray)
    cv2.imwrite(str(tmp_path / "b.png"), gray.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "c.png"), np.dstack([gray, gray, gray, gray]))
    dataset = folder(tmp_path)
    for i in range(3):
        assert np.array_equal(dataset.image(i), np.repeat(gray[..., None], 3, axis=2))


def test_exif_orientation_is_applied(tmp_path):
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, :16] = 255
    _, data = cv2.imencode(".jpg", image)
    (tmp_path / "a.jpg").write_bytes(with_exif(data.tobytes(), 6, entries=()))      # 6: rotate clockwise
    turned = folder(tmp_path).image(0)
    assert turned.shape == (32, 16, 3)
    assert turned[:12].min() > 200
    assert turned[20:].max() < 50


@pytest.mark.parametrize("test_name", ["val", "test"])
def test_splits_with_class_folders(tmp_path, test_name):
    for name in ("train/dog/1.png", "train/cat/2.png", "train/cat/deep/3.png", "train/fox/4.png",
                 f"{test_name}/fox/5.png", f"{test_name}/dog/6.png"):
        write(tmp_path / name)
    (tmp_path / "train/empty").mkdir()
    (tmp_path / "train/cat/notes.txt").write_text("not an image")
    write(tmp_path / "train/.hidden/7.png")
    write(tmp_path / "train/cat/._2.png")
    train, test = folder(tmp_path), folder(tmp_path, "test")
    assert train.class_names == test.class_names == ["cat", "dog", "fox"]
    assert (names(train), train.labels.tolist()) == (["2.png", "3.png", "1.png", "4.png"], [0, 0, 1, 2])
    assert (names(test), test.labels.tolist()) == (["6.png", "5.png"], [1, 2])
    assert train.labels.dtype == np.int64


def test_class_folders_directly_under_root(tmp_path):
    write(tmp_path / "b/1.png")
    write(tmp_path / "a/2.png")
    assert folder(tmp_path).labels.tolist() == [0, 1]
    with pytest.raises(BadInput, match=r"val.* or .*test for its test split"):
        folder(tmp_path, "test")


@pytest.mark.parametrize("files", [["2.png", "1.png"], ["all/2.png", "all/1.png"], ["1.png", "more/2.png"]])
def test_folders_without_classes_have_no_labels(tmp_path, files):
    for name in files:
        write(tmp_path / name)
    dataset = folder(tmp_path)
    assert dataset.labels is None
    assert dataset.class_names is None
    assert names(dataset) == ["1.png", "2.png"]
    assert next(loader_of(dataset, {"name": "simclr", "img_size": 8}, num_workers=1).epoch(0))[1] is None


def test_labelled_overrides_the_layout(tmp_path):
    write(tmp_path / "a/1.png")
    write(tmp_path / "b/2.png")
    assert folder(tmp_path, labelled=False).labels is None
    write(tmp_path / "3.png")
    assert folder(tmp_path).labels is None
    with pytest.raises(BadInput, match="directly in it"):
        folder(tmp_path, labelled=True)


def test_a_test_class_unknown_to_training_is_named(tmp_path):
    for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png", "val/zebra/4.png"):
        write(tmp_path / name)
    with pytest.raises(BadInput, match="zebra"):
        folder(tmp_path, "test")


def with_bad_files(root, count):
    for i in range(6):
        write(root / f"a/{i}.png", value=10 + i)
        write(root / f"b/{i}.png", value=20 + i)
    for i in range(count):
        (root / f"a/{i}.png").write_bytes([b"", b"hello", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"][i % 3])
    return root


def test_bad_images_are_named_counted_and_replaced_within_their_class(tmp_path, capfd):
    dataset = folder(with_bad_files(tmp_path, 3), max_bad_images=3)
    for _ in range(2):
        assert [int(dataset.image(i)[0, 0, 0]) for i in (0, 1, 2, 3)] == [13, 13, 13, 13]
    assert len(dataset.bad_images) == 3
    err = capfd.readouterr().err
    assert err.count("warning: bad image") == 3
    assert all(str(tmp_path / f"a/{i}.png") in err for i in range(3))
    # Read in another order, the same image takes a bad one's place.
    other = folder(tmp_path, max_bad_images=3)
    assert [int(other.image(i)[0, 0, 0]) for i in (2, 0, 1)] == [13, 13, 13]


@pytest.mark.parametrize("workers", [0, 3])
def test_more_bad_images_than_the_limit_end_the_run(tmp_path, workers):
    dataset = folder(with_bad_files(tmp_path, 4), max_bad_images=2)
    made = loader_of(dataset, {"name": "center_crop", "img_size": 6}, batch_size=6, num_workers=workers, shuffle=False)
    with pytest.raises(BadInput, match=r"[34] files .*max_bad_images \(2\).*a/"):
        list(made.epoch(0))


def test_a_class_without_a_readable_image_is_an_error(tmp_path):
    dataset = folder(with_bad_files(tmp_path, 6))
    with pytest.raises(BadInput, match="class can be read"):
        dataset.image(0)
    assert dataset.image(6)[0, 0, 0] == 20


def test_a_file_that_vanished_counts_as_bad(tmp_path):
    dataset = folder(with_bad_files(tmp_path, 0))
    (tmp_path / "a/0.png").unlink()
    assert dataset.image(0)[0, 0, 0] == 11
    assert dataset.bad_images == [str(tmp_path / "a/0.png")]


@pytest.mark.parametrize("state", ["missing", "empty", "file", "only text"])
def test_missing_data_says_where_it_was_looked_for_and_what_to_do(tmp_path, state):
    root = tmp_path / "imagenet"
    if state in ("empty", "only text"):
        (root / "train" / "cat").mkdir(parents=True)
    if state in ("file", "only text"):
        (root if state == "file" else root / "train/cat/a.txt").write_text("x")
    with pytest.raises(BadInput) as caught:
        check_dataset({"name": "image_folder", "root": str(root)})
    message = str(caught.value)
    assert str(root) in message
    assert "-o data.dataset.root=/path/to/images" in message
    assert "passl-mixer train -c configs/quickstart.yaml" in message
    assert "\n" not in message
    assert {"missing": "does not exist", "file": "is a file"}.get(state, "has none") in message


def test_a_relative_root_is_shown_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=str(tmp_path / "data")):
        check_dataset({"name": "image_folder", "root": "data"})
