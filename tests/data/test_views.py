"""The recipes: shapes, probabilities, papers' defaults, and messages."""
import numpy as np
import pytest

from passl_mixer.data import build_views, rng
from passl_mixer.errors import BadInput
from passl_mixer.registry import VIEWS

IMAGENET = (0.485, 0.456, 0.406)
#        name          views  mean
TABLE = [("center_crop", 1, (0.5, 0.5, 0.5)), ("inception", 1, (0.5, 0.5, 0.5)),
         ("simclr", 2, (0.0, 0.0, 0.0)), ("moco_v1", 2, IMAGENET), ("moco_v2", 2, IMAGENET),
         ("byol", 2, IMAGENET), ("moco_v3", 2, IMAGENET)]
# Leaves a square image as it is: with crop_min 1 almost every box is the whole image.
STILL = {"crop_min": 1.0, "flip_p": 0, "jitter_p": 0, "gray_p": 0, "blur_p": 0}


def picture(side=40):
    return rng(5, 0, 0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_every_recipe_is_in_the_table():
    assert [name for name, _, _ in TABLE] == VIEWS.names()


@pytest.mark.parametrize(("name", "num_views", "mean"), TABLE)
def test_a_recipe_gives_its_views_and_depends_on_rng_only(name, num_views, mean):
    recipe = build_views({"name": name, "img_size": 24})
    for image in (picture(), picture(24), np.full((9, 50, 3), 7, np.uint8)):
        before = image.copy()
        first, again = recipe(image, rng(0, 1, 2)), recipe(image, rng(0, 1, 2))
        assert len(first) == recipe.num_views == num_views
        for a, b in zip(first, again):
            assert a.shape == (24, 24, 3)
            assert a.dtype == np.uint8
            assert np.array_equal(a, b)
        assert np.array_equal(image, before)
    assert recipe.mean == mean
    assert len(recipe.std) == 3
    if name != "center_crop":
        assert not np.array_equal(recipe(picture(), rng(0, 1, 3))[0], recipe(picture(), rng(0, 1, 4))[0])


def test_center_crop_leaves_an_image_of_its_size_alone():
    image, recipe = picture(24), build_views({"name": "center_crop", "img_size": 24, "resize": 27})
    assert np.array_equal(recipe(image, None)[0], image)


def share(options, changed, count=600):
    """How often ``changed(image, view)`` holds, for each view."""
    recipe, image = build_views({"img_size": 24, **options}), picture(24)
    return np.mean([[changed(image, v) for v in recipe(image, rng(0, 0, i))] for i in range(count)], axis=0)


def differs(image, view):
    return not np.array_equal(image, view)


def is_gray(image, view):
    return bool((view[..., 0] == view[..., 1]).all() and (view[..., 1] == view[..., 2]).all())


def test_probabilities_of_each_step():
    base = share(dict(STILL, name="moco_v2"), differs)
    assert (base < 0.1).all()
    flipped = share(dict(STILL, name="moco_v2", flip_p=0.5), lambda a, v: np.array_equal(a[:, ::-1], v))
    assert np.allclose(flipped, 0.5, atol=0.09)
    gray = {"crop_min": 0.3, "jitter_p": 0, "blur_p": 0}
    assert np.allclose(share({"name": "simclr", **gray}, is_gray), 0.2, atol=0.05)
    blurred = share(dict(STILL, name="simclr", style="torchvision", blur_p=0.5), lambda a, v: v.std() < 0.97 * a.std())
    assert np.all((blurred > 0.25) & (blurred < 0.55))  # a sigma under about 0.3 changes next to nothing
    jittered = share(dict(STILL, name="simclr", style="torchvision", jitter_p=0.8), differs)
    assert np.allclose(jittered, 0.8, atol=0.07)


@pytest.mark.parametrize("recipe", [{"name": "byol", "style": "torchvision"}, {"name": "moco_v3"}])
def test_byol_and_moco_v3_views_differ_in_blur_and_solarisation(recipe):
    solarised = share(dict(STILL, blur_p=0, solarize_p=[0.0, 0.2], **recipe), lambda a, v: v.max() < 128)
    assert solarised[0] == 0
    assert abs(solarised[1] - 0.2) < 0.05
    smooth = share(dict(STILL, blur_p=[1.0, 0.1], solarize_p=0, **recipe), differs)
    assert smooth[0] > 0.8
    assert smooth[1] < 0.25


def test_moco_v1_grays_before_the_jitter_which_leaves_gray_gray():
    assert np.allclose(share({"name": "moco_v1"}, is_gray), 0.2, atol=0.05)


def test_simclr_strength_scales_the_jitter():
    options = {"name": "simclr", **STILL, "jitter_p": 1, "jitter": [0.8, 0, 0, 0]}
    image = np.full((24, 24, 3), 100, np.uint8)
    values = {}
    for strength in (0.5, 1.0):
        recipe = build_views({**options, "img_size": 24, "jitter_strength": strength})
        values[strength] = [recipe(image, rng(0, 0, i))[0].mean() for i in range(300)]
    assert min(values[0.5]) >= 60
    assert min(values[1.0]) < 30
    assert max(values[1.0]) > 170


@pytest.mark.parametrize(("cfg", "words"), [
    ({"name": "simclr", "blur": 0}, "did you mean 'blur_p'"),
    ({"name": "simclr", "blur_p": 2.0}, "expected 0 to 1"),
    ({"name": "moco_v2", "jitter": [0.4, 0.4]}, "4 numbers"),
    ({"name": "moco_v2", "jitter": [0.4, 0.4, 0.4, 0.9]}, "hue"),
    ({"name": "byol", "blur_p": [1.0, 0.1, 0.5]}, "2 numbers"),
    ({"name": "inception", "crop_min": 0}, "more than 0"),
    ({"name": "inception", "crop_ratio": 0.5}, "expected 1 or more"),
    ({"name": "inception", "std": 0}, "positive"),
    ({"name": "center_crop", "img_size": 32, "resize": 28}, "at least img_size"),
    ({"name": "simclr", "img_size": 0}, "at least 1"),
    ("sim_clr", "did you mean 'simclr'"),
])
def test_wrong_options_are_named(cfg, words):
    with pytest.raises(BadInput, match=words):
        build_views(cfg)
