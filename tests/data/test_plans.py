"""Plans: drawn from sizes alone, the same whether a file is decoded whole or smaller."""
import cv2
import numpy as np
import pytest
from helpers.data import loader_of

from passl_mixer.data import build_dataset, build_views, rng
from passl_mixer.data.decode import decode, decode_reduced
from passl_mixer.data.plans import MARGIN

RANDOM = ["inception", "simclr", "moco_v1", "moco_v2", "byol", "moco_v3"]
TORCHVISION = {"simclr": {"style": "torchvision"}, "byol": {"style": "torchvision"}}
CROPS = {key: {"jitter_p": 0, "gray_p": 0, "blur_p": 0, "flip_p": 0} for key in ("simclr", "moco_v2")}
CROPS["simclr"]["style"] = "torchvision"
CROPS["inception"] = {"flip_p": 0}


def photo(height, width, seed=0):
    """Clouds at several scales with a sharp edge: something of every frequency."""
    draw, image = rng(seed, 0, 0), np.zeros((height, width, 3))
    for cells in (4, 12, 36, 108):
        coarse = draw.normal(0, 40 * (4 / cells) ** 0.7, (cells, cells, 3))
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image[:, width // 3:] += 40
    return np.clip(image + 110, 0, 255).astype(np.uint8)


def jpeg(image):
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def steps_of(plan):
    return [(transform.__name__, *(round(a, 3) for a in amounts)) for transform, *amounts in plan[1]]


def test_the_draws_of_a_recipe_stay_what_they_were():
    """Another order of draws would change every seeded run: these were printed before there were plans."""
    plans = build_views({"name": "simclr", "style": "torchvision"})._plans(375, 500, rng(0, 1, 2))
    assert [plan[0] for plan in plans] == [(0, 84, 359, 381), (0, 16, 237, 276)]
    first, second = (steps_of(plan) for plan in plans)
    assert first == [("flip",), ("brightness", 1.495), ("contrast", 1.255), ("hue", -0.149), ("saturation", 1.416)]
    assert second == [("contrast", 0.357), ("hue", -0.112), ("brightness", 1.693), ("saturation", 0.607),
                      ("grayscale",), ("gaussian_blur", 1.866)]


@pytest.mark.parametrize("name", RANDOM)
def test_a_reduction_leaves_every_crop_enough_pixels(name):
    recipe = build_views({"name": name, "img_size": 20, **TORCHVISION.get(name, {})})
    seen = set()
    for i in range(160):
        height, width = (int(v) for v in rng(0, 0, i).integers(15, 1100, 2))
        factor, plans = recipe.reduction(height, width, rng(1, 0, i)), recipe.plans(height, width, rng(1, 0, i))
        drawn = recipe._plans(height, width, rng(1, 0, i))
        assert [(box, steps_of((box, steps))) for box, steps in plans] == [(p[0], steps_of(p)) for p in drawn]
        smallest = min(min(box[2:]) for box, _ in drawn)
        seen.add(factor)
        assert factor == 1 or smallest / factor >= MARGIN * 20
        assert factor == 8 or smallest / (2 * factor) < MARGIN * 20  # the largest that fits
    assert {1, 2, 4, 8} <= seen


def spectrum(height, width, seed=0):
    """What photographs have: amplitudes that fall with the frequency, and edges."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    noise = np.fft.irfft2(np.fft.rfft2(rng(seed, 0, 0).standard_normal((height, width))) / frequency, s=(height, width))
    image = np.repeat((noise - noise.mean())[..., None] / noise.std() * 50 + 120, 3, axis=2)
    image[height // 3:height // 2] += (50, 20, -40)
    return np.clip(image, 0, 255).astype(np.uint8)


def sharpness(image):
    return cv2.Laplacian(image @ np.array([0.299, 0.587, 0.114]), cv2.CV_64F)[1:-1, 1:-1].var()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("name", "size"), [("simclr", (360, 500)), ("inception", (900, 1200)), ("moco_v2", (610, 407)),
                                            ("simclr", (1501, 2003))])
def test_views_of_a_reduced_image_are_those_of_the_whole_and_as_sharp(name, size, interpolation):
    recipe = build_views({"name": name, "img_size": 32, "interpolation": interpolation, **CROPS[name]})
    data = jpeg(spectrum(*size))
    whole, factors, differences, sharp, plain = decode(data), set(), [], [], []
    for i in range(16):
        image, whole_size = decode_reduced(data, lambda *s, i=i: recipe.reduction(*s, rng(0, 0, i)))
        assert whole_size == whole.shape[:2] == size
        factor = round(size[0] / image.shape[0])
        if factor == 1:
            assert all(np.array_equal(a, b) for a, b in zip(recipe(image, rng(0, 0, i), whole_size),
                                                            recipe(whole, rng(0, 0, i))))
            continue
        factors.add(factor)
        got, expected = recipe(image, rng(0, 0, i), whole_size), recipe(whole, rng(0, 0, i))
        differences += [np.abs(a.astype(int) - b).mean() for a, b in zip(got, expected)]
        sharp += [sharpness(a) / sharpness(b) for a, b in zip(got, expected)]
        moved = recipe(np.roll(whole, factor, axis=1), rng(0, 0, i))
        plain += [np.abs(a.astype(int) - b).mean() for a, b in zip(moved, expected)]
    assert factors
    assert np.mean(differences) <= 1.0  # levels of 255
    assert np.mean(differences) < 0.5 * np.mean(plain)  # a crop one decoded pixel off would be seen
    assert 0.9 <= np.mean(sharp) <= 1.1
    assert min(sharp) > 0.85
    assert max(sharp) < 1.15


def test_all_reductions_were_tested():
    recipe = build_views({"name": "simclr", "img_size": 32, **CROPS["simclr"]})
    found = {recipe.reduction(*size, rng(0, 0, i)) for size in ((360, 500), (1501, 2003)) for i in range(16)}
    assert found >= {2, 4, 8}


def test_images_that_no_crop_of_which_can_be_reduced_take_no_draw():
    for name in RANDOM:
        recipe = build_views({"name": name, "img_size": 24})
        for size in ((119, 300), (24, 24), (20, 31)):
            assert recipe.reduction(*size, None) == 1


def test_a_resampler_that_looks_at_single_pixels_gets_the_whole_image():
    for name in TORCHVISION:
        options = {"name": name, "img_size": 24, "crop_min": 1.0}
        recipe = build_views({**options, "style": "torchvision"})
        assert recipe.antialiased
        assert recipe.reduction(1000, 1000, rng(0, 0, 0)) == 8
        recipe = build_views({**options, "style": "tensorflow"})
        assert not recipe.antialiased
        assert recipe.reduction(1000, 1000, rng(0, 0, 0)) == 1


def write(root, sizes):
    for i, size in enumerate(sizes):
        (root / f"{i}.jpg").write_bytes(jpeg(photo(*size, seed=i)))
    return {"name": "image_folder", "root": str(root)}


def batches(cfg, workers=0, start=0):
    made = loader_of(build_dataset(cfg), {"name": "moco_v2", "img_size": 24}, num_workers=workers)
    return [np.stack(views) for views, _ in made.epoch(1, start)]


def test_batches_of_reduced_images_do_not_depend_on_workers_or_resumes(tmp_path):
    cfg = write(tmp_path, [(300, 400), (60, 50), (220, 200), (400, 130), (90, 110), (170, 260)])
    first = batches(cfg)
    for other in (batches(cfg), batches(cfg, workers=2)):
        assert all(np.array_equal(a, b) for a, b in zip(first, other))
    assert np.array_equal(first[2], batches(cfg, start=2)[0])
    whole = batches({**cfg, "decode_reduced": False})
    differences = [np.abs(a.astype(int) - b).mean() for a, b in zip(first, whole)]
    assert 0 < max(differences) < 3


def test_a_folder_reads_reduced_images_and_replaces_bad_ones_by_images_of_another_size(tmp_path, capfd):
    cfg = write(tmp_path, [(100, 100), (200, 300), (80, 120)])
    (tmp_path / "0.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:70])
    dataset = build_dataset(cfg)
    asked = []

    def quarter(height, width):
        asked.append((height, width))
        return 4

    for _ in range(2):
        image, size = dataset.reduced(0, quarter)
        assert (image.shape[:2], size) == ((50, 75), (200, 300))
    assert asked[-1] == (200, 300)
    assert dataset.bad_images == [str(tmp_path / "0.jpg")]
    assert "bad image 1" in capfd.readouterr().err
    image, size = build_dataset({**cfg, "decode_reduced": False}).reduced(1, quarter)
    assert image.shape[:2] == size == (200, 300)


def test_a_dataset_or_recipe_without_reductions_is_read_whole(tmp_path):
    cfg = write(tmp_path, [(200, 300), (130, 100)])
    dataset = build_dataset(cfg)
    views, _ = next(loader_of(dataset, {"name": "center_crop", "img_size": 16}, shuffle=False).epoch(0))
    expected = [build_views({"name": "center_crop", "img_size": 16})(dataset.image(i), None)[0] for i in range(2)]
    assert np.array_equal(views[0], np.stack(expected))
