"""For the tests of SimCLR's and BYOL's views: their crop boxes written up anew, and deviates of what is random."""
import math

import numpy as np

FAR = 4.5  # standard errors


def z_scores(values, mean, deviation, count):
    """How many standard errors mean and deviation of ``values`` [N] are from those of ``count`` others."""
    n, centred = len(values), values - values.mean()
    kurtosis = (centred ** 4).mean() / max(centred.var(), 1e-12) ** 2
    of_mean = (values.mean() - mean) / max(math.sqrt(values.var() / n + deviation ** 2 / count), 1e-9)
    of_deviation = math.sqrt(max(kurtosis - 1, 1e-3)) / 2 * math.sqrt(1 / n + 1 / count)
    return abs(of_mean), abs(values.std() / max(deviation, 1e-9) - 1) / of_deviation


def chi_square(shares, others, n, count):
    """Normal deviate of a chi-square of two histograms, given as shares of ``n`` and of ``count``."""
    shares, others = np.asarray(shares), np.asarray(others)
    seen = (shares * n + others * count) > 10
    expected = (shares * n + others * count)[seen] / (n + count)
    chi = ((shares - others)[seen] ** 2 / (expected * (1 / n + 1 / count))).sum()
    return (chi - seen.sum()) / math.sqrt(2 * seen.sum())


def simclr_box(height, width, smallest, draw):
    """SimCLR's box with other minima than 0.08, by enumeration: every height that its ratio allows, equally likely."""
    while True:
        ratio = draw.uniform(3 / 4, 4 / 3)
        lowest = round(math.sqrt(smallest * height * width / ratio))
        highest = min(height, math.sqrt(height * width / ratio) + 0.5)
        fits = [h for h in range(1, int(highest) + 1) if round(h * ratio) <= width]
        heights = [h for h in fits if h >= lowest] or fits[-1:]
        h = int(draw.choice(heights))
        h += h * round(h * ratio) < smallest * height * width
        h -= h * round(h * ratio) > height * width
        w = round(h * ratio)
        if h <= height and w <= width and max(smallest, 0.1) * height * width <= h * w <= height * width:
            top, left = (int(draw.integers(room)) if room else 0 for room in (height - h, width - w))
            return top, left, h, w


def cubic(signal, size):
    """Keys' kernel at half-pixel centres, four samples wide at every scale, in float64."""
    centres = (np.arange(size) + 0.5) * len(signal) / size - 0.5
    x = np.abs(centres[:, None] - np.arange(len(signal)))
    far = np.where(x < 2, -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2, 0)
    weights = np.where(x < 1, 1.5 * x ** 3 - 2.5 * x ** 2 + 1, far)
    return np.tensordot(weights / weights.sum(1, keepdims=True), signal, 1)


def byol_box(height, width, smallest, draw):
    area = draw.uniform(smallest, 1) * height * width
    ratio = math.exp(draw.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = (min(round(math.sqrt(v)), side) for v, side in ((area * ratio, width), (area / ratio, height)))
    return int(draw.integers(height - h + 1)), int(draw.integers(width - w + 1)), h, w


WRITTEN = {"simclr": simclr_box, "byol": byol_box}
