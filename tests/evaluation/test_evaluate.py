"""From pictures to features to numbers."""
import numpy as np
import paddle
import pytest
from helpers.arrays import assert_same, state_of

from passl_mixer.data import build_dataset, build_views
from passl_mixer.errors import BadInput
from passl_mixer.evaluation import evaluate
from passl_mixer.evaluation.features import encoder_features, extract, raw_pixels
from passl_mixer.images import to_images


def test_images_are_normalised_channel_by_channel():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    expected = ((pictures / 255.0 - mean) / std).transpose(0, 3, 1, 2)
    found = to_images(pictures, mean, std)
    assert found.dtype == paddle.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def data():
    cfg = {"name": "synthetic", "num_images": 40, "img_size": 8, "num_classes": 4}
    return build_dataset(cfg), build_views({"name": "center_crop", "img_size": 8})


def test_features_are_in_the_order_of_the_dataset(data):
    dataset, views = data
    features, labels = extract(raw_pixels, dataset, views, batch_size=7)
    assert features.shape == (40, 3 * 8 * 8)
    assert np.array_equal(labels, dataset.labels)
    expected = (dataset.image(11) / 127.5 - 1).transpose(2, 0, 1)
    np.testing.assert_allclose(features[11].reshape(3, 8, 8), expected, atol=1e-5)


def test_a_limit_keeps_the_share_of_every_class(data):
    dataset, views = data
    _, labels = extract(raw_pixels, dataset, views, batch_size=7, limit=20)
    assert len(labels) == 20
    assert np.abs(np.bincount(labels, minlength=4) - np.bincount(dataset.labels, minlength=4) / 2).max() <= 1


def test_the_encoder_is_measured_in_evaluation_mode_and_left_as_it_was(data):
    dataset, views = data
    encoder = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.BatchNorm1D(3 * 8 * 8))
    encoder.train()
    before = state_of(encoder)
    features, _ = extract(encoder_features(encoder), dataset, views, batch_size=8)
    assert encoder.training
    assert_same(state_of(encoder), before)
    plain, _ = extract(raw_pixels, dataset, views, batch_size=8)
    np.testing.assert_allclose(features, plain, rtol=1e-4, atol=1e-4)      # running statistics are still 0 and 1


def test_measure_takes_one_pass_for_all_items(tiny):
    config = tiny("evaluate.knn.bank_images=16")
    train = build_dataset(config.data.dataset, "train")
    test = build_dataset(config.data.dataset, "test")
    calls = []

    def encode(images):
        calls.append(len(images))
        return raw_pixels(images)
    views = build_views({"name": "center_crop", "img_size": 16})
    found = evaluate.probe_accuracies(encode, train, test, views, config.evaluate, ["knn", "linear", "labels_1"])
    assert set(found) == {"knn", "linear", "labels_1"}
    assert sum(calls) == len(train) + len(test)
    alone = evaluate.probe_accuracies(raw_pixels, train, test, views, config.evaluate, ["knn"])
    assert alone["knn"] == found["knn"], "the bank is the same whether it is cut before or after the features"


def test_no_labels_beyond_those_allowed_are_used(tiny):
    config = tiny("evaluate.labelled_images=24", "evaluate.knn.bank_images=12")
    train, test = (build_dataset(config.data.dataset, split) for split in ("train", "test"))
    # in the order of the classes, every (N - 1) / 23rd image, and of these every 23 / 11th
    by_class = sorted(range(len(train)), key=lambda i: (train.labels[i], i))
    allowed = {by_class[int(np.rint(i * (len(train) - 1) / 23))] for i in range(24)}
    used = []

    class Watched:
        labels, class_names = train.labels, train.class_names

        def __len__(self):
            return len(train)

        def image(self, index):
            used.append(index)
            return train.image(index)

    views = build_views({"name": "center_crop", "img_size": 16})
    every = evaluate.probe_accuracies(raw_pixels, Watched(), test, views, config.evaluate, ["knn", "linear"])
    assert sorted(used) == sorted(allowed)
    used.clear()
    alone = evaluate.probe_accuracies(raw_pixels, Watched(), test, views, config.evaluate, ["knn"])
    assert len(used) == 12
    assert set(used) < allowed
    assert alone["knn"] == every["knn"]


def test_no_labels_no_evaluation(tmp_path):
    import cv2
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    dataset = build_dataset({"name": "image_folder", "root": str(tmp_path)})
    views = build_views({"name": "center_crop", "img_size": 8})
    with pytest.raises(BadInput, match="evaluation needs labels"):
        extract(raw_pixels, dataset, views, batch_size=2)


def test_table():
    text = evaluate.comparison_table({"knn": {"pretrained": 0.5, "untrained": 0.25, "raw_pixels": 0.3}})
    assert text.splitlines()[0].split() == ["accuracy", "in", "%", "pretrained", "untrained", "raw", "pixels"]
    assert text.splitlines()[-1].split() == ["kNN", "50.0", "25.0", "30.0"]
