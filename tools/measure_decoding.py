"""What decoding large JPEGs at a fraction of their size is worth, and what it changes (``decode_reduced``).

python tools/measure_decoding.py [--repeats 9] [--images 4] [--recipes simclr moco_v2]

Made pictures of four sizes, two views of 224 px, one thread, files in memory. The two ways take turns in one process,
each on all the pictures; printed are the ratios of their times, whole / reduced, median and range, how many images were
decoded at which reduction, and the mean absolute difference of the crops (no flip, colours or blur) in levels of 255;
beside it, as a yardstick, the difference that moving the crop by one pixel of the reduced image makes.
One JSON object a size and recipe.
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

SIZES = [(375, 500), (768, 1024), (1500, 2000), (3000, 4000)]
PLAIN = {"flip_p": 0, "jitter_p": 0, "gray_p": 0, "blur_p": 0}


def read_reduced(views, data: bytes, *triple) -> tuple:
    """(image, size of the whole image), decoded as small as the views of (seed, epoch, index) allow."""
    return decode_reduced(data, lambda height, width: views.reduction(height, width, rng(*triple)))


def level(first, second) -> float:
    """Mean absolute difference of two images."""
    return float(np.abs(first.astype(np.int16) - second).mean())


def differences(views, files: list) -> dict:
    """Mean over all crops whose image is reduced: to the crop of the whole image, and a yardstick."""
    rows = []
    for index, data in enumerate(files):
        whole = decode(data)
        for epoch in range(4):
            image, size = read_reduced(views, data, 0, epoch, index)
            factor = round(size[0] / image.shape[0])
            if factor == 1:
                continue
            moved = views(np.roll(whole, -factor, axis=1), rng(0, epoch, index))
            pairs = zip(views(whole, rng(0, epoch, index)), views(image, rng(0, epoch, index), size), moved)
            rows += [(level(crop, small), level(crop, further)) for crop, small, further in pairs]
    names = ("reduced", "one_reduced_pixel_further")
    return {name: round(float(value), 2) for name, value in zip(names, np.mean(rows, axis=0))} if rows else {}


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
            views, seen = build_views({"name": recipe}), Counter()
            pairs = [[seconds(views, files, epoch, reduced, seen) for reduced in (False, True)]
                     for epoch in range(arguments.repeats + 1)][1:]
            ratios = sorted(whole / reduced for whole, reduced in pairs)
            print(json.dumps({
                "jpeg": f"{width} x {height}", "recipe": recipe, "repeats": arguments.repeats, "images": len(files),
                "whole_over_reduced": {"median": round(statistics.median(ratios), 2), "min": round(ratios[0], 2),
                                       "max": round(ratios[-1], 2)},
                "reductions": {str(factor): seen[factor] for factor in sorted(seen)},
                "levels_of_255": differences(build_views({"name": recipe, **PLAIN}), files)}), flush=True)


if __name__ == "__main__":
    main()
