"""Where SimCLR and BYOL crop, as distributions: beside TensorFlow's own boxes and beside a write-up.

Both have random numbers of their own, so nothing is compared draw by draw: means and deviations by z-scores, histograms
by chi-square. Seeds are fixed. That a deviate can be large is held too: torchvision's sampler is far away.
"""
import numpy as np
import pytest
from helpers.official_boxes import FAR, WRITTEN, chi_square, z_scores

from passl_mixer.data import rng, sampling, tensorflow_sampling
from passl_mixer.data.sampling import Draws

DRAWS = 20000
BOXES = {"simclr": tensorflow_sampling.simclr_box, "byol": tensorflow_sampling.byol_box}
SIZES = [(375, 500), (500, 375), (32, 32), (90, 400), (28, 28)]


def statistics(boxes, height, width):
    """Values of area (share), log ratio, place down and across (shares of the room there is): [4, N]."""
    top, left, h, w = np.asarray(boxes, float).T
    return np.array([h * w / (height * width), np.log(w / h), top / np.maximum(height - h, 1),
                     left / np.maximum(width - w, 1)])


@pytest.fixture(scope="module")
def golden(request):
    return dict(np.load(request.config.rootpath / "tests/golden/tensorflow_views.npz"))


def far(values, expected):
    """The largest deviate of ``values`` [4, N] from TensorFlow's statistics [4, 2 + bins]."""
    ranges = ((0, 1), (-0.8, 0.8), (0, 1.0001), (0, 1.0001))
    found = []
    for v, (mean, deviation, *shares), limits in zip(values, expected, ranges):
        found += z_scores(v, mean, deviation, DRAWS)
        found.append(chi_square(np.histogram(v, len(shares), limits)[0] / len(v), shares, len(v), DRAWS))
    return max(found)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("recipe", BOXES)
def test_boxes_are_distributed_as_tensorflows(recipe, height, width, golden):
    expected, draw = golden[f"boxes/{recipe}/{height}x{width}"], Draws(rng(1, 0, 0))
    boxes = np.array([BOXES[recipe](height, width, 0.08, draw) for _ in range(DRAWS)])
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2:].min() > 0
    assert (boxes[:, :2] + boxes[:, 2:]).max(0).tolist() <= [height, width]
    assert far(statistics(boxes, height, width), expected) < FAR
    others = [sampling.crop_box(height, width, 0.08, draw) for _ in range(DRAWS)]
    assert far(statistics(others, height, width), expected) > 2 * FAR


@pytest.mark.parametrize(("draw", "mean"), [(tensorflow_sampling.simclr_box, 0.3877),
                                            (tensorflow_sampling.byol_box, 0.5186), (sampling.crop_box, 0.433)])
def test_the_mean_area_of_an_imagenet_crop(draw, mean):
    numbers = Draws(rng(2, 0, 0))
    areas = [h * w / (375 * 500) for _, _, h, w in (draw(375, 500, 0.08, numbers) for _ in range(40000))]
    assert abs(np.mean(areas) - mean) < 0.004  # the first two by numerical integration over ratio, height and area


@pytest.mark.parametrize(("height", "width", "smallest"), [(28, 28, 0.4), (12, 12, 0.5), (41, 29, 0.2), (24, 37, 0.08)])
@pytest.mark.parametrize("recipe", BOXES)
def test_boxes_of_other_sizes_and_minima(recipe, height, width, smallest):
    draw, numbers, count = np.random.default_rng(7), Draws(rng(3, 0, 0)), 12000
    mine = np.array([BOXES[recipe](height, width, smallest, numbers) for _ in range(count)])
    theirs = np.array([WRITTEN[recipe](height, width, smallest, draw) for _ in range(count)])
    for values, others in zip(statistics(mine, height, width), statistics(theirs, height, width)):
        assert max(z_scores(values, others.mean(), others.std(), count)) < FAR
    for sides, others in zip(mine.T, theirs.T):
        shares = [np.bincount(v, minlength=max(height, width) + 1) / count for v in (sides, others)]
        assert chi_square(*shares, count, count) < FAR


def test_boxes_where_almost_nothing_fits():
    numbers = Draws(rng(4, 0, 0))
    assert all(tensorflow_sampling.simclr_box(9, 400, 0.5, numbers) == (0, 0, 9, 400) for _ in range(20))
    assert all(tensorflow_sampling.simclr_box(1, 1, 0.08, numbers) == (0, 0, 1, 1) for _ in range(20))
    heights = {tensorflow_sampling.byol_box(9, 400, 0.5, numbers)[2] for _ in range(50)}
    assert heights == {9}
    tiny = np.array([tensorflow_sampling.byol_box(1, 2, 0.08, numbers) for _ in range(50)])
    assert tiny.min() >= 0
    assert tiny[:, 2:].min() == 1
