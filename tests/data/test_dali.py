"""DALI's batches against the other loader's: the same images, boxes, colours and labels, the pixels within a level."""
import importlib.util
import json
import threading

import cv2
import numpy as np
import pytest
from helpers.data import assert_same_batches, loader_of, with_exif

from passl_mixer.data import build_dataset, build_views, dali, dali_plans, rng, transforms
from passl_mixer.errors import BadInput

HAS_DALI = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="needs NVIDIA DALI: pip install nvidia-dali-cuda120")
SIDE = 48
SIZES = [(375, 500), (90, 70), (64, 230), (260, 200), (500, 120), (48, 48), (150, 160), (420, 610)]


def picture(height, width, seed):
    """Smooth colours all over the cube, from dark to saturated."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of JPEGs, of which one is turned by EXIF and one lacks nothing but a clean end; one is a PNG."""
    folder = tmp_path_factory.mktemp("images")
    for i, size in enumerate(SIZES):
        data = cv2.imencode(".png" if i == 3 else ".jpg", picture(*size, i))[1].tobytes()
        data = with_exif(data, 6, entries=()) if i == 2 else data + b"\0\0" if i == 6 else data
        path = folder / "ab"[i % 2] / f"{i}.{'png' if i == 3 else 'jpg'}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return folder


def loaders(root, views, **options):
    """(the other loader, DALI's) over the same images, decoded whole by both."""
    dataset = build_dataset({"name": "image_folder", "root": str(root), "decode_reduced": False})
    ours = loader_of(dataset, {"img_size": SIDE, **views}, **{"batch_size": 4, "num_workers": 1, **options})
    return ours, dali.DaliLoader(ours)


def differences(first, second):
    """Mean absolute difference of each pair of images, in levels."""
    return np.concatenate([np.abs(a.astype(int) - b).mean((1, 2, 3))
                           for (views_a, _), (views_b, _) in zip(first, second) for a, b in zip(views_a, views_b)])


ALONE = {"name": "simclr", "style": "torchvision", "jitter_p": 0.0, "gray_p": 0.0, "blur_p": 0.0}
CASES = {
    "inception": ({"name": "inception"}, 0.3),
    "bicubic": ({"name": "inception", "interpolation": "bicubic"}, 0.4),
    "gray": ({**ALONE, "gray_p": 1.0}, 0.4),
    "blur": ({**ALONE, "blur_p": 1.0}, 0.4),
    "brightness": ({**ALONE, "jitter_p": 1.0, "jitter": [0.8, 0, 0, 0]}, 0.4),
    "contrast": ({**ALONE, "jitter_p": 1.0, "jitter": [0, 0.8, 0, 0]}, 0.4),
    "saturation": ({**ALONE, "jitter_p": 1.0, "jitter": [0, 0, 0.8, 0]}, 0.5),
    "hue": ({**ALONE, "jitter_p": 1.0, "jitter": [0, 0, 0, 0.5]}, 1.0),
    "simclr": ({"name": "simclr", "style": "torchvision", "jitter_p": 1.0}, 1.0), "moco_v1": ({"name": "moco_v1"}, 1.0),
    "moco_v2": ({"name": "moco_v2", "jitter_p": 1.0}, 1.0),
    "byol": ({"name": "byol", "style": "torchvision", "solarize_p": 0.5}, 1.0),
    "moco_v3": ({"name": "moco_v3", "solarize_p": 0.5}, 1.0),
}


@needs_dali
@pytest.mark.parametrize("case", CASES)
def test_views_are_those_of_the_other_loader(root, case):
    views, tolerance = CASES[case]
    ours, made = loaders(root, views)
    expected, got = list(ours.epoch(1)), list(made.epoch(1))
    assert len(expected) == len(got) == len(made) == 2
    for (a, labels_a), (b, labels_b) in zip(expected, got):
        assert np.array_equal(labels_a, labels_b)
        assert [(v.shape, v.dtype) for v in a] == [(v.shape, v.dtype) for v in b]
    found = differences(expected, got)
    assert found.mean() < tolerance
    assert found.max() < 3 * tolerance
    assert differences(expected, ours.epoch(2)).mean() > 10  # what other boxes and colours would give


@needs_dali
def test_a_resume_is_bitwise_and_leaves_no_thread(root):
    _, made = loaders(root, {"name": "moco_v3"}, batch_size=2, num_workers=2)
    whole, rest = list(made.epoch(5)), list(made.epoch(5, start_batch=2))
    assert len(rest) == 2
    assert_same_batches(whole[2:], rest)
    assert list(made.epoch(5, start_batch=4)) == []
    for _ in made.epoch(5):
        break
    assert not [t for t in threading.enumerate() if t.name.startswith("passl_mixer_data")]


@needs_dali
def test_ranks_and_a_last_batch_that_is_not_full(root):
    one = {"name": "inception"}
    whole = list(loaders(root, one, batch_size=6, drop_last=False, num_workers=0)[1].epoch(0))
    ranks = [list(loaders(root, one, batch_size=2, drop_last=False, rank=r, world_size=3)[1].epoch(0))
             for r in range(3)]
    assert [len(labels) for _, labels in ranks[0]] == [2, 1]
    assert ranks[2][1][0][0].shape == (0, SIDE, SIDE, 3)  # its share of the last two images
    for b, (views, labels) in enumerate(whole):
        assert np.array_equal(views[0], np.concatenate([rank[b][0][0] for rank in ranks]))
        assert np.array_equal(labels, np.concatenate([rank[b][1] for rank in ranks]))


@needs_dali
def test_a_damaged_file_is_replaced_as_by_the_other_loader(root, tmp_path, capfd):
    for i in range(4):
        data = cv2.imencode(".jpg", picture(100, 90, i))[1].tobytes()
        (tmp_path / f"{i}.jpg").write_bytes(data[:len(data) // 2] if i == 1 else data)
    ours, made = loaders(tmp_path, {"name": "moco_v2"}, shuffle=False)
    got = list(made.epoch(0))
    assert made.dataset.bad_images == [str(tmp_path / "1.jpg")]
    assert "bad image 1" in capfd.readouterr().err
    assert got[0][1] is None
    assert differences(ours.epoch(0), got).max() < 3


@needs_dali
def test_a_file_that_only_dali_refuses_ends_with_its_reason(tmp_path):
    whole = cv2.imencode(".jpg", picture(100, 90, 0))[1].tobytes()
    start = whole.index(b"\xff\xdb")
    (tmp_path / "a.jpg").write_bytes(whole[:start] + whole[whole.index(b"\xff\xc0"):])  # no quantisation tables
    _, made = loaders(tmp_path, {"name": "inception"}, batch_size=1)
    with pytest.raises(BadInput, match=r"DALI could not make a batch of epoch 0: .*sample #0.*data\.loader=threads"):
        next(made.epoch(0))


@needs_dali
def test_training_does_not_know_which_loader_it_has(root, tmp_path, tiny):
    trainer = pytest.importorskip("passl_mixer.training.trainer")
    data = ["data.dataset={name: image_folder, root: " + str(root) + "}", "data.batch_size=4",
            "data.train_views={name: simclr, img_size: 16, style: torchvision}", "train.checkpoint_every_steps=1"]

    def losses(run, *overrides, resume=False):
        trainer.train(tiny(*data, f"output_dir={tmp_path / run}", *overrides), resume=resume)
        lines = [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        return {line["step"]: line["loss"] for line in lines if "loss" in line}

    threads = losses("threads", "train.max_steps=3")
    got = losses("dali", "train.max_steps=3", "data.loader=dali")
    assert list(got) == [1, 2, 3]
    assert max(abs(got[step] / threads[step] - 1) for step in got) < 0.05
    losses("resumed", "train.max_steps=1", "data.loader=dali")
    assert losses("resumed", "train.max_steps=3", "data.loader=dali", resume=True) == got


@pytest.mark.skipif(HAS_DALI, reason="DALI is installed")
def test_without_dali_the_message_names_the_package(root):
    with pytest.raises(BadInput, match=r"pip install .*nvidia-dali-cuda120.*data\.loader=threads"):
        loaders(root, {"name": "moco_v2"})


def test_other_datasets_and_views_are_refused(root):
    with pytest.raises(BadInput, match=r"data\.dataset\.name=image_folder"):
        dali.DaliLoader(loader_of(build_dataset({"name": "synthetic", "num_images": 8}), "simclr"))
    with pytest.raises(BadInput, match=r"CenterCrop has none; expected data\.train_views of inception"):
        loaders(root, {"name": "center_crop"})
    for name in ("simclr", "byol"):
        with pytest.raises(BadInput, match=r"style 'tensorflow'.*data\.train_views\.style=torchvision"):
            loaders(root, {"name": name})


def test_the_configuration_names_the_loaders(tiny):
    assert tiny().data.loader == "threads"
    with pytest.raises(BadInput, match=r"'data\.loader' is 'dalli', expected threads or dali"):
        tiny("data.loader=dalli")


def test_a_plan_as_numbers():
    steps = [(transforms.flip,), (transforms.hue, -0.1), (transforms.contrast, 1.5), (transforms.grayscale,),
             (transforms.gaussian_blur, 1.25), (transforms.solarize,)]
    row = dali_plans.to_row(((3, 5, 70, 64), steps), 100, "x")
    assert row[dali_plans.BOX].tolist() == [3, 5, 70, 64]
    assert row[[dali_plans.FLIP, dali_plans.SOLARIZE]].tolist() == [1, 1]
    assert row[dali_plans.KINDS].tolist() == [dali_plans.HUE, dali_plans.CONTRAST, dali_plans.SATURATION, 0, 0]
    np.testing.assert_allclose(row[dali_plans.AMOUNTS], [230 / 256, 1.5, 0, 0, 0])
    assert row[[dali_plans.WINDOW, dali_plans.SIGMA]].tolist() == [11, 1.25]
    plain = dali_plans.to_row(((0, 0, 9, 9), [(transforms.gaussian_blur, 0.2)]), 100, "x")  # too little to see
    assert plain[[dali_plans.WINDOW, dali_plans.FLIP, dali_plans.SOLARIZE]].tolist() == [1, 0, 0]
    assert row.shape == (dali_plans.NUM_COLUMNS,)


@pytest.mark.parametrize(("steps", "words"), [
    ([(transforms.gaussian_blur, 1.0), (transforms.brightness, 2.0)], "brightness after the blur"),
    ([(transforms.solarize,), (transforms.grayscale,)], "grayscale after the blur or solarize"),
    ([(transforms.brightness, 2.0)] * 6, "6 colour steps, more than 5"),
    ([(transforms.center_crop, 3, 3)], "its plan has center_crop"),
])
def test_a_step_that_cannot_be_made_is_named(steps, words):
    with pytest.raises(BadInput, match=f"the views of Mine.*{words}"):
        dali_plans.to_row(((0, 0, 90, 90), steps), 64, "Mine")


def test_plans_are_those_that_the_recipe_follows():
    recipe, image = build_views({"name": "byol", "style": "torchvision", "img_size": 24}), picture(90, 130, 0)
    (box, steps), _ = recipe.plans(90, 130, rng(0, 0, 7))
    view = transforms.resized_crop(image, box, 24, "bicubic")
    for transform, *amounts in steps:
        view = transform(view, *amounts)
    assert np.array_equal(view, recipe(image, rng(0, 0, 7))[0])
    assert recipe.bicubic
    assert not build_views("moco_v2").bicubic


def test_files_are_handed_over_as_jpeg_or_decoded():
    image = picture(40, 60, 0)
    jpeg, png = (cv2.imencode(end, image)[1].tobytes() for end in (".jpg", ".png"))
    assert dali.encoded(jpeg) == (jpeg, (40, 60))
    assert dali.encoded(with_exif(jpeg, 6, entries=()))[1] == (60, 40)
    for data in (png, jpeg + b"\0"):
        bitmap, size = dali.encoded(data)
        assert (bitmap[:2], size) == (b"BM", (40, 60))
        assert np.array_equal(cv2.imdecode(np.frombuffer(bitmap, np.uint8), cv2.IMREAD_COLOR),
                              cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    assert dali.encoded(b"no image") is None
    assert dali.encoded(jpeg[:60]) is None
