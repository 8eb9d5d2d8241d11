"""What decoding large JPEGs at a fraction of their size is worth, and what it changes (``decode_reduced``).

python tools/measure_decoding.py [--repeats 9] [--images 4] [--recipes simclr moco_v2]

Made pictures of eight sizes, two views of 224 px, one thread, files in memory. The two ways take turns in one process,
each on all the pictures; printed are the ratios of their times, whole / reduced, median and range, and how many images
were decoded at which reduction. The crops of the reduced images alone (no flip, colours or blur) are held against those
of the whole ones, which are the ones torchvision makes of PIL images: the mean absolute difference in levels of 255
(mean, most), and the ratio of the Laplacians' variances, which says how sharp they are (mean, least, most). One JSON
object a size and recipe.
"""
import argparse
import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import cv2
import numpy as np
from bench.pictures import picture

from passl_mixer.data import build_views, rng
from passl_mixer.data.decode import decode, decode_reduced
from passl_mixer.data.transforms import GRAY_WEIGHTS

SIZES = [(225, 300), (375, 500), (600, 800), (768, 1024), (1200, 1600), (1500, 2000), (2250, 3000), (3000, 4000)]
PLAIN = {"flip_p": 0, "jitter_p": 0, "gray_p": 0, "blur_p": 0}


def read_reduced(views, data: bytes, *triple) -> tuple:
    """(image, size of the whole image), decoded as small as the views of (seed, epoch, index) allow."""
    return decode_reduced(data, lambda height, width: views.reduction(height, width, rng(*triple)))


def level(first, second) -> float:
    """Mean absolute difference of two images."""
    return float(np.abs(first.astype(np.int16) - second).mean())


def sharpness(image) -> float:
    """Variance of the Laplacian of the luma, without the border."""
    return cv2.Laplacian(image @ np.array(GRAY_WEIGHTS), cv2.CV_64F)[1:-1, 1:-1].var()


def differences(views, files: list) -> dict:
    """Over all crops of reduced images: how far from those of the whole images, and how sharp beside them."""
    levels, sharp = [], []
    for index, data in enumerate(files):
        whole = decode(data)
        for epoch in range(8):
            image, size = read_reduced(views, data, 0, epoch, index)
            if image.shape[0] < size[0]:
                pairs = list(zip(views(image, rng(0, epoch, index), size), views(whole, rng(0, epoch, index))))
                levels += [level(small, crop) for small, crop in pairs]
                sharp += [sharpness(small) / sharpness(crop) for small, crop in pairs]
    if not levels:
        return {}
    return {"crops": len(levels), "levels_of_255": [round(float(f(levels)), 2) for f in (np.mean, np.max)],
            "laplacian_ratio": [round(float(f(sharp)), 2) for f in (np.mean, np.min, np.max)]}


def seconds(views, files: list, epoch: int, reduced: bool, seen: Counter) -> float:
    """Time of the views of every file."""
    started = time.perf_counter()
    for index, data in enumerate(files):
        image, size = read_reduced(views, data, 0, epoch, index) if reduced else (decode(data), None)
        views(image, rng(0, epoch, index), size)
        if reduced:
            seen[round(size[0] / image.shape[0])] += 1
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--images", type=int, default=4, help="pictures of each size")
    parser.add_argument("--recipes", nargs="+", default=["simclr", "moco_v2"])
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    for height, width in SIZES:
        made = [picture(height, width, np.random.default_rng(i)) for i in range(arguments.images)]
        files = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes() for image in made]
        for recipe in arguments.recipes:
            style = {"style": "torchvision"} if recipe in ("simclr", "byol") else {}  # TensorFlow's decodes whole
            views, seen = build_views({"name": recipe, **style}), Counter()
            pairs = [[seconds(views, files, epoch, reduced, seen) for reduced in (False, True)]
                     for epoch in range(arguments.repeats + 1)][1:]
            ratios = sorted(whole / reduced for whole, reduced in pairs)
            print(json.dumps({
                "jpeg": f"{width} x {height}", "recipe": recipe, "repeats": arguments.repeats, "images": len(files),
                "whole_over_reduced": {"median": round(statistics.median(ratios), 2), "min": round(ratios[0], 2),
                                       "max": round(ratios[-1], 2)},
                "reductions": {str(factor): seen[factor] for factor in sorted(seen)},
                **differences(build_views({"name": recipe, **style, **PLAIN}), files)}), flush=True)


if __name__ == "__main__":
    main()
