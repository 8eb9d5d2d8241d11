"""TensorFlow's operations: against what TensorFlow made (tools/golden_tensorflow_views.py), and against slow NumPy."""
import colorsys
import json

import numpy as np
import pytest
from helpers.official_boxes import cubic

from passl_mixer.data import tensorflow_style as style
from passl_mixer.data import transforms
from passl_mixer.data.loader import rng
from passl_mixer.data.tensorflow_resize import resize_bicubic


@pytest.fixture(scope="module")
def golden(request):
    return dict(np.load(request.config.rootpath / "tests/golden/tensorflow_views.npz"))


def keys(golden, kind):
    found = [key.split("/")[1:] for key in golden if key.startswith(kind + "/")]
    assert found
    return found


def test_the_cubic_filter_is_tensorflows(golden):
    for picture, side in keys(golden, "resize"):
        made = resize_bicubic(golden[f"image/{picture}"], int(side))
        assert made.dtype == np.float32
        assert np.abs(made - golden[f"resize/{picture}/{side}"]).max() < 1e-5
    assert made.flags["C_CONTIGUOUS"]


def test_steps_are_tensorflows_within_0_to_1_and_beyond(golden):
    names = set()
    for values, name, *amounts in keys(golden, "step"):
        names.add(name)
        made = getattr(style, name)(golden[f"float/{values}"], *map(float, amounts))
        if name in ("saturation", "hue"):  # a plan clips them where they can overshoot
            made = style.clip(made)
        expected = golden["/".join(["step", values, name, *amounts])]
        assert np.abs(made - expected).max() < 1e-5, (values, name, amounts)
    assert names == {"multiply", "add", "contrast", "saturation", "hue", "grayscale"}
    assert golden["float/1"].min() < -0.05  # what a cubic overshoots, with pixels whose channels are all below 0
    assert golden["float/1"].max(2).min() < 0


def test_the_blur_is_tensorflows(golden):
    for (sigma,) in keys(golden, "blur"):
        made = style.gaussian_blur(np.float32(golden["image/2"] / 255), float(sigma))
        assert np.abs(made - golden[f"blur/{sigma}"]).max() < 1e-5


def test_whole_plans_are_tensorflows(golden):
    plans = json.loads(str(golden["about"]))["plans"]
    for p, (recipe, picture, (top, left, height, width), side, steps) in enumerate(plans):
        made = resize_bicubic(golden[f"image/{picture}"][top:top + height, left:left + width], side)
        made = style.clip(made) if recipe == "byol" else made
        for i, (name, *amounts) in enumerate(steps):
            if name == "gaussian_blur" and i < 2:
                made = style.clip(made)
            made = transforms.flip(made) if name == "flip" else getattr(style, name)(made, *amounts)
            if name in ("saturation", "hue") and i < 2:
                made = style.clip(made)
        got, expected = style.to_bytes(made), golden[f"plan/{p}"]
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - expected).max() <= 1
        assert (got != expected).mean() < 0.005  # a value close to a half is rounded the other way


@pytest.mark.parametrize(("shape", "size"), [((9, 50), 24), ((50, 41), 41), ((1, 3), 7), ((70, 300), 48),
                                             ((45, 210), 20), ((120, 90), 100), ((330, 713), 100)])
def test_the_cubic_filter_looks_at_four_pixels_at_every_scale(shape, size):
    image = rng(1, 2, 3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = cubic(cubic(image / 255.0, size).swapaxes(0, 1), size).swapaxes(0, 1)
    # TensorFlow's table has 1024 phases a pixel; a cut of a larger array is what a crop is
    assert np.abs(resize_bicubic(image, size) - expected).max() < 2e-3
    larger = np.zeros((shape[0] + 4, shape[1] + 3, 3), np.uint8)
    larger[2:-2, 1:-2] = image
    assert np.array_equal(resize_bicubic(larger[2:-2, 1:-2], size), resize_bicubic(image, size))


@pytest.mark.parametrize("sigma", [0.15, 0.4, 1.1, 2.0])
def test_a_large_blur_pads_with_zeros(sigma):
    image = rng(0, 0, 0).random((60, 224, 3), np.float32)[:, :60].repeat(4, 0)[:224].repeat(4, 1)[:, :224]
    taps = np.exp(-0.5 * (np.arange(-11, 12) / sigma) ** 2)
    padded = np.pad(image.astype(float), ((11, 11), (11, 11), (0, 0)))
    rows = sum(w * padded[k:k + 224] for k, w in enumerate(taps / taps.sum()))
    expected = sum(w * rows[:, k:k + 224] for k, w in enumerate(taps / taps.sum()))
    assert np.abs(style.gaussian_blur(image, sigma) - expected).max() < 3e-5  # a hundredth of a level


@pytest.mark.parametrize("turns", [-0.5, -0.3, -1e-9, 0.0, 0.01, 0.49])
def test_hue_goes_round_the_circle_both_ways(turns):
    image = rng(4, 0, 0).random((5, 37, 3), np.float32)
    image[0, :5] = [[0, 0, 0], [1, 1, 1], [1, 0, 0], [1, 0, 1e-4], [0.5, 0.5, 0.5]]
    expected = [[colorsys.hsv_to_rgb((h + turns) % 1, s, v) for h, s, v in (colorsys.rgb_to_hsv(*p) for p in row)]
                for row in image.astype(float)]
    assert np.abs(style.hue(image, turns) - expected).max() < 1e-5


def test_solarize_and_the_end():
    values = np.float32([[[-0.2, 0.0, 0.3], [0.5, 0.49999, 0.8], [1.0, 1.2, 0.50001]]])
    assert np.allclose(style.solarize(style.clip(values)), [[[0, 0, 0.3], [0.5, 0.49999, 0.2], [0, 0, 0.49999]]])
    levels = np.float32([[[-0.2, 0.0, 0.3], [0.5 - 1e-5, 0.5 + 1e-5, 0.8], [1.0, 1.2, 100.4 / 255]]])
    assert style.to_bytes(levels).tolist() == [[[0, 0, 76], [127, 128, 204], [255, 255, 100]]]


def test_no_step_changes_its_argument(golden):
    image = golden["float/1"]
    before = image.copy()
    for step, *amounts in ((style.clip,), (style.multiply, 1.3), (style.add, 0.1), (style.contrast, 0.4),
                           (style.hue, 0.1), (style.saturation, 1.5), (style.grayscale,),
                           (style.solarize,), (style.to_bytes,)):
        step(image, *amounts)
        assert np.array_equal(image, before), step
