"""SimCLR's and BYOL's views as distributions: their choices, and their pixels beside a write-up of the official code.

The write-up takes its own random numbers, so nothing is compared draw by draw: means and deviations by z-scores, shares
by chi-square. Seeds are fixed. That a z-score can fail is held too: torchvision's form is far away.
"""
import math

import numpy as np
import pytest
from helpers.official_boxes import FAR, WRITTEN, chi_square, cubic, z_scores

from passl_mixer.data import build_views, rng


def plans_of(name, count=3000, **options):
    recipe = build_views({"name": name, **options})
    return list(zip(*(recipe.plans(60, 80, rng(5, 0, i)) for i in range(count))))


def names(plan):
    return [step.__name__ for step, *_ in plan[1]]


def share_of(plans, name):
    return sum(name in names(plan) for plan in plans) / len(plans)


#         flip, jitter, gray, blur of both views, solarise of both views
SHARES = {"simclr": (0.5, 0.8, 0.2, (0.5, 0.5), (0.0, 0.0)), "byol": (0.5, 0.8, 0.2, (1.0, 0.1), (0.0, 0.2))}
#          brightness, contrast, saturation, hue
AMOUNTS = {"simclr": {"multiply": (0.2, 1.8), "contrast": (0.2, 1.8), "saturation": (0.2, 1.8), "hue": (-0.2, 0.2)},
           "byol": {"add": (-0.4, 0.4), "contrast": (0.6, 1.4), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}}


@pytest.mark.parametrize("name", SHARES)
def test_choices_have_the_published_probabilities_ranges_and_orders(name):
    flip, jitter, gray, blur, solarize = SHARES[name]
    for view, plans in enumerate(plans_of(name)):
        chances = {"flip": flip, "hue": jitter, "grayscale": gray, "gaussian_blur": blur[view],
                   "solarize": solarize[view]}
        for step, chance in chances.items():
            error = math.sqrt(max(chance * (1 - chance), 1e-12) / len(plans))
            assert abs(share_of(plans, step) - chance) < FAR * error + 1e-12, step
        for step, (low, high) in {**AMOUNTS[name], "gaussian_blur": (0.1, 2.0)}.items():
            drawn = np.array([amounts[0] for _, steps in plans for s, *amounts in steps if s.__name__ == step])
            assert low <= drawn.min() < drawn.max() <= high
            assert max(z_scores((drawn - low) / (high - low), 0.5, 12 ** -0.5, 10 ** 9)) < FAR, step
        orders = [tuple(s for s in names(plan) if s in AMOUNTS[name]) for plan in plans]
        jittered = [order for order in orders if order]
        counts = [jittered.count(order) / len(jittered) for order in set(jittered)]
        assert len(counts) == 24
        assert chi_square(counts, [1 / 24] * 24, len(jittered), 10 ** 9) < FAR


def test_clips_stand_where_the_official_code_has_them():
    for plans in plans_of("byol", 300):
        assert all(names(plan)[0] == "clip" and names(plan).count("clip") == 1 for plan in plans)
    seen = set()
    for plan in plans_of("simclr", 600)[0]:
        steps = [s for s in names(plan) if s != "flip"]
        assert steps.pop() == "to_bytes"
        colors = [s for s in steps if s in AMOUNTS["simclr"]]
        expected = steps.index(colors[0]) + 1 if colors and colors[0] in ("saturation", "hue") else None
        if not colors and "gaussian_blur" in steps:
            expected = steps.index("gaussian_blur") - 1
        assert [i for i, s in enumerate(steps) if s == "clip"] == ([] if expected is None else [expected])
        seen.add((bool(colors), expected is None))
    assert len(seen) == 4
    still = plans_of("simclr", 100, jitter=[0.8, 0, 0, 0], jitter_p=1, flip_p=0, gray_p=0, blur_p=0)[0]
    assert {tuple(names(plan)) for plan in still} == {("multiply", "to_bytes"), ("clip", "multiply", "to_bytes")}


def in_hsv(image, factor=1.0, turns=0.0):
    """Chroma, hue and value by hand; hue counts from 0 to 6."""
    value, least = image.max(-1), image.min(-1)
    chroma = np.where(value - least > 0, value - least, 1)
    red, green, blue = np.moveaxis(image, -1, 0)
    hue = np.where(value == red, (green - blue) / chroma,
                   np.where(value == green, 2 + (blue - red) / chroma, 4 + (red - green) / chroma))
    hue = np.where(value > least, hue, 0) + 6 * turns
    chroma = np.where(value > 0, np.minimum((value - least) * factor, value), 0)
    k = (np.array([5, 3, 1]) + hue[..., None]) % 6
    return value[..., None] - chroma[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1)


def blurred(image, sigma):
    kernel = np.exp(-np.array([-1, 0, 1]) ** 2 / (2 * sigma ** 2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        image = sum(w * np.take(padded, np.arange(k, k + image.shape[axis]), axis) for k, w in enumerate(kernel))
    return image


def written_view(name, view, image, side, draw):
    """A view as the official code makes it, in float64; ``side`` of 20 to 39 pixels: a blur of three."""
    strength = {"simclr": (0.8, 0.8, 0.8, 0.2), "byol": (0.4, 0.4, 0.2, 0.1)}[name]
    top, left, h, w = WRITTEN[name](*image.shape[:2], 0.08, draw)
    x = cubic(cubic(image[top:top + h, left:left + w] / 255, side).swapaxes(0, 1), side).swapaxes(0, 1)
    x = np.clip(x, 0, 1) if name == "byol" else x
    x = x[:, ::-1] if draw.random() < 0.5 else x
    if draw.random() < 0.8:
        for which in draw.permutation(4):
            amount = draw.uniform(-strength[which], strength[which])
            if which == 0:
                x = x + amount if name == "byol" else x * (1 + amount)
            elif which == 1:
                x = (x - x.mean((0, 1))) * (1 + amount) + x.mean((0, 1))
            else:
                x = in_hsv(x, factor=1 + amount) if which == 2 else in_hsv(x, turns=amount)
            x = np.clip(x, 0, 1)
    if draw.random() < 0.2:
        x = np.repeat(x @ np.array([[0.2989], [0.587], [0.114]]), 3, -1)
    x = np.clip(x, 0, 1)
    if draw.random() < {"simclr": (0.5, 0.5), "byol": (1.0, 0.1)}[name][view]:
        x = blurred(x, draw.uniform(0.1, 2))
    if name == "byol" and view == 1 and draw.random() < 0.2:
        x = np.where(x < 0.5, x, 1 - x)
    return 255 * np.clip(x, 0, 1)


def measures(views):
    """What is compared of views [N, S, S, 3]: levels, contrasts, colourfulness, edges, border, black; [8, N]."""
    x = np.asarray(views, float)
    spread, edges = x.max(-1) - x.min(-1), np.abs(np.diff(x, axis=1))
    return np.array([*x.mean((1, 2)).T, x.std((1, 2)).mean(-1), spread.mean((1, 2)), edges.mean((1, 2, 3)),
                     x[:, 0].mean((1, 2)) - x.mean((1, 2, 3)), (x < 1).mean((1, 2, 3))])


@pytest.mark.parametrize("name", SHARES)
def test_pixels_are_distributed_as_those_of_the_official_code(name):
    y, x = np.mgrid[0:1:26j, 0:1:34j][..., None]
    image = np.clip(90 + 140 * np.sin(5 * x + [0, 3, 5]) * np.cos(4 * y + [1, 2, 0]), 0, 255).astype(np.uint8)
    count, far_away = 1500, []
    for view in range(2):
        draw = np.random.default_rng(view)
        expected = measures([written_view(name, view, image, 24, draw) for _ in range(count)])
        for style in ("tensorflow", "torchvision"):
            recipe = build_views({"name": name, "img_size": 24, "style": style})
            got = measures([recipe(image, rng(6, 0, i))[view] for i in range(count)])
            scores = [s for a, b in zip(got, expected) for s in z_scores(a, b.mean(), b.std(), count)]
            if style == "tensorflow":
                assert max(scores) < FAR, scores
            else:
                far_away.append(max(scores))
    assert min(far_away) > 2 * FAR


def test_brightness_of_byol_is_added_and_of_simclr_multiplied():
    image = np.full((24, 24, 3), 102, np.uint8)  # 0.4
    one = {"jitter": [0.3, 0, 0, 0], "jitter_p": 1, "flip_p": 0, "gray_p": 0, "blur_p": 0, "img_size": 24}
    for name, spread in (("byol", 0.3 * 255), ("simclr", 0.3 * 102)):
        options = {**one, "solarize_p": 0} if name == "byol" else one
        recipe = build_views({"name": name, **options})
        levels = np.array([recipe(image, rng(8, 0, i))[0] for i in range(1500)])
        assert (levels == levels[:, :1, :1, :1]).all()
        shifts = levels[:, 0, 0, 0] - 102.0
        assert max(z_scores(shifts, 0.0, spread / 3 ** 0.5, 10 ** 9)) < FAR
        assert np.abs(shifts).max() <= round(spread) + 1
