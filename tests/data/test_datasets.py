"""The datasets without a folder: what is in them, and that they can be learned."""
import subprocess
import sys

import numpy as np
import pytest

from passl_mixer.data import build_dataset, check_dataset
from passl_mixer.errors import BadInput


def pixels(dataset):
    return np.stack([dataset.image(i) for i in range(len(dataset))])


def nearest_centroid_accuracy(cfg):
    train, test = build_dataset(cfg), build_dataset(cfg, "test")
    x, y = (pixels(d).reshape(len(d), -1).astype(float) for d in (train, test))
    centroids = np.stack([x[train.labels == c].mean(axis=0) for c in range(train.labels.max() + 1)])
    distances = ((y[:, None] - centroids) ** 2).sum(axis=2)
    return np.mean(distances.argmin(axis=1) == test.labels)


@pytest.mark.parametrize(("split", "count"), [("train", 5000), ("test", 1000)])
def test_fashion_mnist_mini_is_complete(split, count):
    dataset = build_dataset("fashion_mnist_mini", split)
    assert len(dataset) == count
    assert np.array_equal(np.bincount(dataset.labels), np.full(10, count // 10))
    assert dataset.labels.dtype == np.int64
    assert dataset.class_names[9] == "Ankle boot"
    image = dataset.image(count - 1)
    assert image.shape == (28, 28, 3)
    assert image.dtype == np.uint8
    assert (image[..., 0] == image[..., 2]).all()


def test_fashion_mnist_small_contains_the_mini_one():
    few, many, test = (build_dataset(*cfg) for cfg in (
        ("fashion_mnist_mini", "train"), ("fashion_mnist_small", "train"), ("fashion_mnist_small", "test")))
    x = pixels(many)[..., 0]
    assert np.array_equal(x[:5000], pixels(few)[..., 0])
    assert np.array_equal(many.labels[:5000], few.labels)
    assert np.array_equal(np.bincount(many.labels), np.full(10, 2000))
    assert np.array_equal(np.bincount(test.labels), np.full(10, 500))
    held_out = pixels(build_dataset("fashion_mnist_mini", "test"))[..., 0]
    distinct = {image.tobytes() for image in (*x, *held_out, *pixels(test)[..., 0])}
    assert len(distinct) == 26000, "no image twice, and none to train on that is tested on"


def test_labels_fit_the_images_of_fashion_mnist_small():
    """The class means of the mini set agree with all other labels as often as with their own."""
    train, test = build_dataset("fashion_mnist_small"), build_dataset("fashion_mnist_small", "test")
    x = np.concatenate([pixels(train)[..., 0], pixels(test)[..., 0]]).reshape(25000, -1).astype(np.float32)
    y = np.concatenate([train.labels, test.labels])
    centroids = np.stack([x[:5000][y[:5000] == c].mean(axis=0) for c in range(10)])
    agree = ((centroids ** 2).sum(axis=1) - 2 * x @ centroids.T).argmin(axis=1) == y
    own, more, tested = agree[:5000].mean(), agree[5000:20000].mean(), agree[20000:].mean()
    assert own > 0.65
    assert abs(own - more) < 0.02
    assert abs(own - tested) < 0.02


def test_synthetic_is_deterministic_and_learnable():
    cfg = {"name": "synthetic", "num_images": 200, "num_test_images": 60, "img_size": 16, "num_classes": 4}
    train, again, test = build_dataset(cfg), build_dataset(cfg), build_dataset(cfg, "test")
    assert (len(train), len(test)) == (200, 60)
    assert np.array_equal(pixels(train), pixels(again))
    assert not np.array_equal(pixels(train)[:60], pixels(test))
    assert not np.array_equal(train.image(0), build_dataset({**cfg, "seed": 1}).image(0))
    assert train.image(0).shape == (16, 16, 3)
    assert nearest_centroid_accuracy(cfg) > 0.6


@pytest.mark.parametrize(("cfg", "words"), [
    ({"name": "synthetic", "num_images": 0}, "num_images is 0"),
    ({"name": "synthetic", "num_imgs": 5}, "did you mean 'num_images'"),
    ("cifar_10", "did you mean 'cifar10'"),
    ({"name": "image_folder"}, "needs option 'root'"),
])
def test_wrong_options_are_named(cfg, words):
    with pytest.raises(BadInput, match=words):
        check_dataset(cfg)


def test_an_unknown_split_is_named():
    with pytest.raises(BadInput, match="'valid', expected 'train' or 'test'"):
        build_dataset("fashion_mnist_mini", "valid")


@pytest.mark.parametrize("name", ["fashion_mnist_mini", "embedded_captions"])
def test_the_data_package_alone_does_not_need_paddle(name):
    # In its own process: a missing folder must be reported before Paddle, slow to import, is loaded.
    code = ("import sys; sys.modules['paddle'] = None; import passl_mixer.data.folder as f; "
            f"import passl_mixer.data as d; d.build_dataset('{name}')")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
