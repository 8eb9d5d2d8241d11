"""Writes tests/golden/tensorflow_views.npz: what TensorFlow itself makes of small images, and where it crops.

    PYTHON tools/golden_tensorflow_views.py [--out tests/golden/tensorflow_views.npz] [--draws 20000]

PYTHON is of an environment with TensorFlow (``pip install tensorflow-cpu``); nothing of this project is imported. The
views are put together from TensorFlow's operators in the order of google-research/simclr ``tf2/data_util.py`` and of
google-deepmind/deepmind-research ``byol/utils``, whose JAX operations say themselves that they follow TensorFlow's.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

SIZES = [(375, 500), (500, 375), (32, 32), (90, 400), (28, 28)]  # of images, height and width, for the boxes
RESIZES = [(0, 24), (0, 9), (1, 24), (2, 17)]                     # image, side
FACTORS, TURNS, SIGMAS = (0.0, 0.35, 1.8), (-0.2, 0.07, 0.5), (0.3, 1.3, 2.0)
RANGES = [(0.0, 1.0), (-0.08, 1.08)]                             # of values: a picture's, and what a cubic makes of it
BINS = 16


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 [height, width, 3]: smooth colours, a hard edge, and noise."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j][..., None]
    waves = np.sin(draw.uniform(2, 9, 3) * x + draw.uniform(2, 9, 3) * y + draw.uniform(0, 6, 3))
    levels = 120 + 90 * waves + draw.normal(0, 18, (height, width, 3))
    levels[:, width // 3:width // 2] = draw.integers(0, 2, 3) * 255
    return np.clip(levels, 0, 255).astype(np.uint8)


def blur(image, sigma: float):
    """Two depthwise convolutions with zeros around the image; the kernel is a tenth of the side."""
    radius = image.shape[0] // 10 // 2
    x = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernel = tf.exp(-x ** 2 / (2.0 * sigma ** 2))
    kernel = tf.tile(tf.reshape(kernel / tf.reduce_sum(kernel), [1, -1, 1, 1]), [1, 1, 3, 1])
    for weights in (kernel, tf.transpose(kernel, [1, 0, 2, 3])):
        image = tf.nn.depthwise_conv2d(image[None], weights, [1, 1, 1, 1], "SAME")[0]
    return image


def gray(image):
    return tf.tile(tf.image.rgb_to_grayscale(image), [1, 1, 3])


def clip(image):
    return tf.clip_by_value(image, 0.0, 1.0)


STEPS = {
    "multiply": lambda image, factor: clip(image * factor),
    "add": lambda image, delta: clip(tf.image.adjust_brightness(image, delta)),
    "contrast": lambda image, factor: clip(tf.image.adjust_contrast(image, factor)),
    "saturation": lambda image, factor: clip(tf.image.adjust_saturation(image, factor)),
    "hue": lambda image, turns: clip(tf.image.adjust_hue(image, turns)),
    "grayscale": gray, "gaussian_blur": blur, "clip": clip, "flip": tf.image.flip_left_right,
    "solarize": lambda image: tf.where(image < 0.5, image, 1.0 - image),
}
PLANS = [  # recipe, image, box, side, steps
    ("simclr", 0, (3, 5, 30, 41), 24, [("flip",), ("contrast", 1.7), ("hue", -0.17), ("multiply", 1.4),
                                       ("saturation", 0.4), ("gaussian_blur", 1.1)]),
    ("simclr", 1, (0, 2, 12, 11), 32, [("hue", 0.12), ("saturation", 1.75), ("contrast", 0.3), ("multiply", 0.6)]),
    ("simclr", 0, (10, 0, 21, 25), 32, [("saturation", 1.6), ("multiply", 1.3), ("hue", 0.2), ("contrast", 1.2),
                                        ("grayscale",)]),
    ("simclr", 2, (1, 1, 20, 20), 24, [("grayscale",), ("gaussian_blur", 1.9)]),
    ("byol", 0, (3, 5, 30, 41), 24, [("flip",), ("add", -0.3), ("hue", 0.09), ("saturation", 1.2), ("contrast", 1.4),
                                     ("gaussian_blur", 1.5)]),
    ("byol", 1, (0, 2, 12, 11), 32, [("saturation", 0.8), ("contrast", 0.7), ("add", 0.25), ("hue", -0.1),
                                     ("grayscale",), ("solarize",)]),
]


def view(recipe: str, image, box, side: int, steps):
    """A view with its choices made, uint8."""
    top, left, height, width = box
    crop = image[top:top + height, left:left + width]
    if recipe == "simclr":  # scaled first, and not clipped before the colours
        made = tf.image.resize(tf.image.convert_image_dtype(crop, tf.float32), [side, side], "bicubic")
    else:
        made = clip(tf.image.resize(crop, [side, side], "bicubic") / 255.0)
    for name, *amounts in steps:
        if name == "gaussian_blur":
            made = clip(made)  # SimCLR blurs what preprocess_for_train has clipped
        made = STEPS[name](made, *amounts)
    return np.rint(clip(made).numpy() * 255).astype(np.uint8)


def simclr_boxes(height: int, width: int, draws: int) -> np.ndarray:
    """int [draws, 4]: top, left, height, width."""
    whole = tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4])

    @tf.function
    def one(index):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            [height, width, 3], whole, seed=tf.stack([0, index]), min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3), area_range=(0.08, 1.0), max_attempts=100,
            use_image_if_no_bounding_boxes=True)
        return tf.concat([begin[:2], size[:2]], 0)

    return tf.map_fn(one, tf.range(draws)).numpy()


def byol_boxes(height: int, width: int, draws: int) -> np.ndarray:
    """As BYOL's ``_decode_and_random_crop`` draws them, all at once."""
    area = tf.random.uniform([draws], 0.08, 1.0) * float(height * width)
    ratio = tf.exp(tf.random.uniform([draws], tf.math.log(3 / 4), tf.math.log(4 / 3)))
    w = tf.minimum(tf.cast(tf.round(tf.sqrt(area * ratio)), tf.int32), width)
    h = tf.minimum(tf.cast(tf.round(tf.sqrt(area / ratio)), tf.int32), height)
    places = [tf.cast(tf.floor(tf.random.uniform([draws]) * tf.cast(side - cut + 1, tf.float32)), tf.int32)
              for side, cut in ((height, h), (width, w))]
    return tf.stack([*places, h, w], 1).numpy()


def statistics(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """float [4, 2 + BINS]: mean, deviation and shares of a histogram, of area, log ratio, place down, place across."""
    top, left, h, w = boxes.T.astype(float)
    values = (h * w / (height * width), np.log(w / h), top / np.maximum(height - h, 1), left / np.maximum(width - w, 1))
    ranges = ((0, 1), (-0.8, 0.8), (0, 1.0001), (0, 1.0001))
    return np.array([[v.mean(), v.std(), *np.histogram(v, BINS, r)[0] / len(v)] for v, r in zip(values, ranges)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(__file__).resolve().parents[1] / "tests" / "golden"
    parser.add_argument("--out", type=Path, default=folder / "tensorflow_views.npz")
    parser.add_argument("--draws", type=int, default=20000)
    arguments = parser.parse_args()
    tf.random.set_seed(0)
    pictures = [picture(40, 52, 1), picture(14, 13, 2), picture(24, 24, 3)]
    kept = {f"image/{i}": image for i, image in enumerate(pictures)}
    for i, side in RESIZES:
        kept[f"resize/{i}/{side}"] = tf.image.resize(pictures[i], [side, side], "bicubic").numpy() / np.float32(255)
    for r, (low, high) in enumerate(RANGES):
        image = (low + (high - low) * picture(8, 8, 4 + r) / 255.0).astype(np.float32)
        if low < 0:  # channels that are all below 0, or some
            image[0, :4] = [[-0.01, -0.05, -0.03], [-0.08, -0.08, -0.08], [-0.02, 0.3, -0.05], [-0.05, -0.01, -0.01]]
        kept[f"float/{r}"] = image
        for name, amounts in (("multiply", FACTORS), ("add", TURNS), ("contrast", FACTORS), ("saturation", FACTORS),
                              ("hue", TURNS)):
            for amount in amounts:
                kept[f"step/{r}/{name}/{amount}"] = STEPS[name](image, amount).numpy()
        kept[f"step/{r}/grayscale"] = gray(image).numpy()
    for sigma in SIGMAS:
        kept[f"blur/{sigma}"] = blur(tf.constant(pictures[2] / np.float32(255)), sigma).numpy()
    for p, (recipe, i, box, side, steps) in enumerate(PLANS):
        kept[f"plan/{p}"] = view(recipe, pictures[i], box, side, steps)
    for recipe, draw in (("simclr", simclr_boxes), ("byol", byol_boxes)):
        for height, width in SIZES:
            boxes = draw(height, width, arguments.draws)
            kept[f"boxes/{recipe}/{height}x{width}"] = statistics(boxes, height, width)
    about = {"tensorflow": tf.__version__, "numpy": np.__version__, "draws": arguments.draws, "plans": PLANS}
    np.savez_compressed(arguments.out, about=json.dumps(about), **kept)
    print(arguments.out, arguments.out.stat().st_size, "bytes")
    for key in kept:
        if key.startswith("boxes/"):
            print(key, "mean area", round(float(kept[key][0, 0]), 4))


if __name__ == "__main__":
    main()
