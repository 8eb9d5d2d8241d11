"""Resizing against torchvision's pixels (tests/golden/pixels.npz, by tools/make_pixels.py) and against slow NumPy."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from helpers.marks import needs_native
from PIL import Image

from passl_mixer.data import build_views, resampling, rng, transforms
from passl_mixer.data.resampling import ANTIALIASED, RESAMPLERS
from passl_mixer.errors import BadInput
from passl_mixer.ops import native

with np.load(Path(__file__).parents[1] / "golden" / "pixels.npz", allow_pickle=False) as FILE:
    GOLDEN = {name: FILE[name] for name in FILE.files}
PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def keys(kind, interpolation):
    return [key.split("/") for key in GOLDEN if key.startswith(f"{kind}/") and key.split("/")[2] == interpolation]


def differences(got, expected):
    assert got.dtype == np.uint8
    assert got.shape == expected.shape
    return np.abs(got.astype(int) - expected)


def noise(height, width, seed=0):
    return rng(seed, 0, 1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", sorted(ANTIALIASED))
def test_evaluation_views_are_torchvisions(interpolation):
    found = []
    for key in keys("eval", interpolation):
        resize, size = int(key[3]), int(key[4])
        options = {"img_size": size, "resize": resize, "interpolation": interpolation}
        recipe = build_views({"name": "center_crop", **options})
        (view,) = recipe(GOLDEN[f"source/{key[1]}"], None)
        found.append(differences(view, GOLDEN["/".join(key)]))
    assert len(found) == 12
    assert max(each.max() for each in found) <= 1
    assert max(each.mean() for each in found) < 0.1


@pytest.mark.parametrize("interpolation", sorted(ANTIALIASED))
def test_training_crops_are_torchvisions(interpolation):
    found = []
    for key in keys("crop", interpolation):
        box, size = tuple(int(v) for v in key[3:7]), int(key[7])
        view = transforms.resized_crop(GOLDEN[f"source/{key[1]}"], box, size, interpolation)
        found.append(differences(view, GOLDEN["/".join(key)]))
    assert len(found) == 16
    assert max(each.mean() for each in found) < 0.3     # another version of Pillow may round elsewhere
    if PIL.__version__ == json.loads(str(GOLDEN["versions"]))["pillow"]:
        assert max(each.max() for each in found) == 0


def weights(old, new, interpolation):
    """[new, old]: the filter around each new pixel's centre, wider where old pixels are smaller; rows sum to 1."""
    scale = max(1.0, old / new)
    distance = np.abs((np.arange(new)[:, None] + 0.5) * old / new - np.arange(old) - 0.5) / scale
    if interpolation == "bilinear":
        found = np.maximum(0, 1 - distance)
    else:
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        found = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return found / found.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("interpolation", sorted(ANTIALIASED))
@pytest.mark.parametrize("size", [(40, 40), (40, 31), (17, 90), (200, 160), (9, 3), (1, 1)])
def test_resamplers_are_wide_filters_and_see_nothing_outside_of_the_crop(interpolation, size):
    image = noise(size[0] + 6, size[1] + 4)
    crop = image[2:2 + size[0], 3:3 + size[1]]
    rows, columns = (weights(side, 24, interpolation) for side in size)

    def levels(numbers):
        return np.clip(np.floor(numbers + 0.5), 0, 255)     # Pillow keeps 8 bits between its passes

    across = levels(np.einsum("rh,hck->rck", rows, levels(np.einsum("cw,hwk->hck", columns, crop.astype(float)))))
    down = levels(np.einsum("cw,rwk->rck", columns, levels(np.einsum("rh,hwk->rwk", rows, crop.astype(float)))))
    got = RESAMPLERS[interpolation](crop, 24)
    assert min(np.abs(got - across).max(), np.abs(got - down).max()) <= 1   # which pass is first depends on the version
    assert np.array_equal(got, transforms.resized_crop(image, (2, 3, *size), 24, interpolation))
    got[:] = 0                                      # the caller's own


@pytest.mark.parametrize("interpolation", sorted(ANTIALIASED))
@pytest.mark.parametrize(("size", "resize", "side"), [
    ((375, 500), 256, 224), ((500, 333), 256, 224), ((257, 256), 256, 224), ((256, 300), 256, 224), ((20, 33), 40, 36),
    ((1, 50), 24, 20), ((700, 30), 24, 24), ((1200, 1601), 64, 56), ((28, 28), 32, 32), ((5, 5), 5, 3)])
def test_center_crop_is_resize_then_crop(interpolation, size, resize, side):
    image = noise(*size)
    short, long = sorted(size)
    target = {short: resize, long: int(resize * long / short)} if short != long else {short: resize}
    rows, columns = target[size[0]], target[size[1]]
    source, kind = Image.fromarray(image), PIL_FILTERS[interpolation]
    top, left = round((rows - side) / 2.0), round((columns - side) / 2.0)
    got = transforms.center_crop(image, side, resize, interpolation)
    found = []
    for between in ((columns, size[0]), (size[1], rows)):   # which pass Pillow takes first depends on its version
        whole = np.asarray(source.resize(between, kind).resize((columns, rows), kind))
        found.append(differences(got, whole[top:top + side, left:left + side]))
    best = min(found, key=np.mean)
    assert best.max() <= 1
    assert best.mean() < 0.1
    if (rows, columns) == size:
        assert best.max() == 0


def test_edges_between_pixels_stay_where_they_are():
    ramp = np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)    # 20 x 40
    whole = (np.arange(160) - 1.5) * 6 / 4          # what it would be at four times the size
    for left, width in ((41, 80), (42, 100), (43, 113)):
        view = transforms.resized_crop(ramp, (0, left, 80, width), 8, "bilinear", 4)
        centres = left + (np.arange(8) + 0.5) * width / 8 - 0.5
        assert np.abs(view[0, 1:-1, 0] - np.interp(centres, np.arange(160), whole)[1:-1]).max() <= 0.75


@pytest.mark.parametrize("name", ["inception", "simclr", "moco_v1", "moco_v2", "byol", "moco_v3"])
def test_every_recipe_interpolates_as_asked(name):
    image = noise(60, 60)
    still = {} if name == "inception" else {"jitter_p": 0, "gray_p": 0}
    still.update({"blur_p": 0} if name in ("simclr", "moco_v2", "byol", "moco_v3") else {})
    still.update({"solarize_p": 0} if name in ("byol", "moco_v3") else {})
    still.update({"style": "torchvision"} if name in ("simclr", "byol") else {})
    default = "bicubic" if name in ("simclr", "byol") else "bilinear"
    for given in ({"interpolation": "bilinear"}, {"interpolation": "bicubic"}, {}):
        recipe = build_views({"name": name, "img_size": 20, "flip_p": 0, **still, **given})
        for view, (box, _) in zip(recipe(image, rng(0, 0, 4)), recipe.plans(60, 60, rng(0, 0, 4))):
            cut = Image.fromarray(image[box[0]:box[0] + box[2], box[1]:box[1] + box[3]])
            expected = cut.resize((20, 20), PIL_FILTERS[given.get("interpolation", default)])
            np.testing.assert_array_equal(view, np.asarray(expected))


@pytest.mark.parametrize("name", ["center_crop", "inception", "simclr", "moco_v1", "moco_v2", "byol", "moco_v3"])
def test_an_unknown_interpolation_is_named(name):
    with pytest.raises(BadInput, match=r"'interpolation' is 'cubic'; did you mean 'bicubic'"):
        build_views({"name": name, "interpolation": "cubic"})


def test_inception_interpolates_as_asked():
    image = rng(5, 0, 0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    for name in ("bilinear", "bicubic"):
        recipe = build_views({"name": "inception", "img_size": 20, "crop_min": 1.0, "flip_p": 0.0, "crop_ratio": 1.0,
                              "interpolation": name})
        expected = transforms.resized_crop(image, (0, 0, 24, 24), 20, name)
        np.testing.assert_array_equal(recipe(image, rng(0, 0, 0))[0], expected)


@needs_native
@pytest.mark.parametrize("interpolation", sorted(ANTIALIASED))
def test_the_native_kernel_makes_pillows_pixels(interpolation):
    """Larger and smaller, in both orders of the passes, sides of one pixel, and rows that no vector divides."""
    draw, orders = rng(0, 0, 3), set()
    sizes = [(1, 1, 1), (1, 300, 7), (300, 1, 7), (224, 224, 224), (300, 350, 224), (350, 240, 224), (2, 2, 300)]
    sizes += [tuple(int(v) for v in draw.integers(1, 260, 3)) for _ in range(150)]
    for height, width, size in sizes:
        image = noise(height, width, seed=height)
        expected = Image.fromarray(image).resize((size, size), PIL_FILTERS[interpolation])
        np.testing.assert_array_equal(RESAMPLERS[interpolation](image, size), np.asarray(expected),
                                      err_msg=f"{height} x {width} to {size}")
        orders.add(resampling._rows_first(height, width, size))
    assert orders == ({True, False} if int(PIL.__version__.split(".")[0]) >= 13 else {False})


@needs_native
def test_the_native_kernel_takes_parts_of_arrays_and_refuses_what_is_not_dense():
    image = noise(40, 50)[3:33, 5:45, ::-1]
    expected = Image.fromarray(np.ascontiguousarray(image)).resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(RESAMPLERS["bilinear"](image, 24), np.asarray(expected))
    made = np.empty((24, 24, 3), np.uint8)
    for wrong, words in ((image, "an array with strides"), (image[:4], "expected 3600 elements"),
                         (np.zeros((30, 40, 3), np.int8), "an array of int8")):
        with pytest.raises((TypeError, ValueError), match=words):
            native.call("resize_pixels", wrong, made, 30, 40, 24, 0, 0)


def test_without_paddle_pillow_resizes():
    script = ("import sys, numpy as np; from passl_mixer.data.resampling import RESAMPLERS; "
              "x = np.arange(3 * 40 * 30, dtype=np.uint8).reshape(40, 30, 3); "
              "y = RESAMPLERS['bicubic'](x, 17); assert 'paddle' not in sys.modules; print(y.tolist())")
    made = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    image = np.arange(3 * 40 * 30, dtype=np.uint8).reshape(40, 30, 3)
    np.testing.assert_array_equal(RESAMPLERS["bicubic"](image, 17), json.loads(made))
