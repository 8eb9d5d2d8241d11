"""Each transform against its definition in slow NumPy, and the random choices against their distributions."""
import colorsys

import cv2
import numpy as np
import pytest

from passl_mixer.data import sampling, transforms
from passl_mixer.data.loader import rng


@pytest.fixture
def image():
    return rng(1, 2, 3).integers(0, 256, (30, 26, 3), dtype=np.uint8)


def luma(image):
    return image.astype(float) @ np.array([0.299, 0.587, 0.114])


def assert_near(got, expected, levels=1):
    assert got.dtype == np.uint8
    assert np.abs(got.astype(float) - np.clip(expected, 0, 255)).max() <= levels


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
def test_brightness_contrast_saturation_follow_their_definitions(image, factor):
    assert_near(transforms.brightness(image, factor), factor * image.astype(float))
    assert_near(transforms.contrast(image, factor), factor * image + (1 - factor) * luma(image).mean())
    gray = luma(image)[..., None]
    assert_near(transforms.saturation(image, factor), factor * image + (1 - factor) * gray, 1.5)


def test_grayscale_is_luma_in_three_channels(image):
    gray = transforms.grayscale(image)
    assert_near(gray, np.repeat(luma(image)[..., None], 3, axis=2))


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.2, 1 / 3])
def test_hue_rotates_the_colour_circle(turns):
    image = np.array([[[200, 40, 40], [40, 200, 40], [90, 90, 90], [30, 60, 220]]], dtype=np.uint8)
    expected = np.empty(image.shape)
    for i, pixel in enumerate(image[0]):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        expected[0, i] = np.array(colorsys.hsv_to_rgb((h + turns) % 1, s, v)) * 255
    assert_near(transforms.hue(image, turns), expected, 6)  # 8-bit HSV: 256 hues
    assert transforms.hue(image, 0.0) is image


@pytest.mark.parametrize(("side", "kernel"), [(224, 23), (96, 9), (32, 3), (28, 3), (18, 1)])
def test_blur_kernel_is_a_tenth_of_the_side_and_odd(side, kernel):
    assert transforms.blur_kernel_size(side) == kernel


def test_gaussian_blur_is_a_weighted_mean_of_neighbours():
    image = rng(0, 0, 0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    sigma, radius = 1.3, 3
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(image.astype(float), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    expected = sum(weights[i, j] * padded[i:i + 60, j:j + 60] for i in range(7) for j in range(7))
    assert_near(transforms.gaussian_blur(image, sigma), expected, 1.5)


@pytest.mark.parametrize("sigma", [0.1, 0.24, 0.26, 0.5, 1.0, 2.0])
def test_a_shorter_blur_kernel_changes_no_level(sigma):
    image = rng(0, 0, 0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    kernel = cv2.getGaussianKernel(23, sigma)
    whole = cv2.sepFilter2D(image.astype(np.float64), -1, kernel, kernel)  # mirrors the border as well
    assert_near(transforms.gaussian_blur(image, sigma), whole, 0.53)       # rounding alone is 0.5


def test_solarize_inverts_128_and_above_and_flip_mirrors(image):
    assert np.array_equal(transforms.solarize(image), np.where(image < 128, image, 255 - image))
    assert np.array_equal(transforms.flip(image), image[:, ::-1])


def test_resized_crop_cuts_the_box_and_averages_where_it_shrinks():
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 4:24] = rng(0, 0, 1).integers(0, 256, (20, 20, 3))
    cut = image[10:30, 4:24]
    for interpolation in ("bilinear", "bicubic"):
        assert np.array_equal(transforms.resized_crop(image, (10, 4, 20, 20), 20, interpolation), cut)
        shrunk = transforms.resized_crop(image, (10, 4, 20, 20), 2, interpolation)
        middles = cut.reshape(2, 10, 2, 10, 3).mean(axis=(1, 3))
        assert np.abs(shrunk - middles).max() < 12      # single pixels are tens of levels away
    box = np.zeros((40, 40, 3), np.uint8)
    box[10:30, 4:24] = 200
    assert (transforms.resized_crop(box, (10, 4, 20, 20), 7, "bicubic") == 200).all()   # nothing of the black around it


def test_resized_crop_of_an_image_decoded_smaller_cuts_the_same_part():
    coarse = rng(0, 0, 1).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    whole = cv2.resize(coarse, (140, 152), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(whole, (35, 38), interpolation=cv2.INTER_AREA)
    for box in ((16, 32, 64, 96), (17, 33, 66, 91), (90, 71, 62, 69), (0, 0, 152, 140)):
        for interpolation in ("bilinear", "bicubic"):
            got = transforms.resized_crop(small, box, 6, interpolation, 4).astype(int)
            assert np.abs(got - transforms.resized_crop(whole, box, 6, interpolation)).mean() < 1.2
            for step in (2, -2):    # half a pixel of the small image further would be seen
                moved = (min(box[0] + step, 152 - box[2]), min(box[1] + step, 140 - box[3]), *box[2:])
                if min(moved) >= 0 and moved != box:
                    assert np.abs(got - transforms.resized_crop(whole, moved, 6, interpolation)).mean() > 2


def test_center_crop_keeps_the_middle():
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 10:30] = 200
    assert (transforms.center_crop(image, 20, 20) == 200).all()
    inner = transforms.center_crop(np.pad(image[:, 10:30], ((0, 0), (3, 3), (0, 0))), 16, 20)
    assert inner.shape == (16, 16, 3)
    assert (inner == 200).all()


def test_crop_boxes_fit_and_have_the_areas_and_ratios_asked_for():
    boxes = np.array([sampling.crop_box(200, 160, 0.2, rng(0, 0, i)) for i in range(2000)])
    assert boxes[:, :2].min() >= 0
    assert ((boxes[:, :2] + boxes[:, 2:]).max(axis=0) <= (200, 160)).all()
    height, width = boxes[:, 2:].T
    share, ratio = height * width / 32000, width / height
    assert share.min() > 0.19
    assert ratio.min() > 0.73
    assert ratio.max() < 1.36
    # Up to 0.6 of the area every ratio fits this image, so nothing is drawn again and the area stays uniform.
    quarters = np.histogram(share, bins=[0.2, 0.3, 0.4, 0.5, 0.6])[0]
    assert quarters.max() < 1.2 * quarters.min()


@pytest.mark.parametrize(("size", "box"), [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10))])
def test_a_long_image_falls_back_to_the_central_box(size, box):
    assert sampling.crop_box(*size, 1.0, rng(0, 0, 0)) == box
    assert sampling.crop_box(1, 1, 0.5, rng(0, 0, 0)) == (0, 0, 1, 1)


def jittered(image, strengths, generator):
    for transform, amount in sampling.color_jitter(strengths, generator):
        image = transform(image, amount)
    return image


def test_color_jitter_draws_uniform_factors_in_every_order():
    gray = np.full((1, 1, 3), 100, np.uint8)
    factors = [jittered(gray, (0.4, 0, 0, 0), rng(0, 0, i))[0, 0, 0] / 100 for i in range(1500)]
    assert min(factors) >= 0.6
    assert max(factors) <= 1.4
    assert abs(np.mean(factors) - 1) < 0.02
    assert abs(np.std(factors) - 0.8 / 12**0.5) < 0.01
    orders = {tuple(t for t, _ in sampling.color_jitter((0.4, 0.4, 0.4, 0.1), rng(0, 0, i))) for i in range(500)}
    assert len(orders) == 24
    assert sampling.color_jitter((0, 0, 0, 0), rng(0, 0, 1)) == []
    strong = [sampling.color_jitter((1.5, 0, 0, 0.2), rng(0, 0, i)) for i in range(300)]
    amounts = {t: [a for steps in strong for u, a in steps if u is t] for t in (transforms.brightness, transforms.hue)}
    assert 0 <= min(amounts[transforms.brightness]) < 0.1
    assert 2.4 < max(amounts[transforms.brightness]) <= 2.5
    assert -0.2 <= min(amounts[transforms.hue]) < -0.18
    assert 0.18 < max(amounts[transforms.hue]) <= 0.2


def test_square_crops_are_square_and_fall_back_to_a_square():
    boxes = np.array([sampling.crop_box(60, 90, 0.3, rng(0, 0, i), 1.0) for i in range(300)])
    assert (boxes[:, 2] == boxes[:, 3]).all()
    assert sampling.crop_box(10, 100, 1.0, rng(0, 0, 0), 1.0) == (0, 45, 10, 10)
