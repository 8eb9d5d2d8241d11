"""What a resized network is worth before fine-tuning: train mlp_mixer_nano at 28 px, evaluate it at 28, 32 and 56 px.

python tools/measure_resize.py [--epochs 8] [--seeds 0 1 2]

Supervised on the 5,000 packaged Fashion-MNIST images; top-1 on the 1,000 test images, which are scaled up (bilinear) to
the size of the network. One JSON object a seed.
"""
import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import paddle

from passl_mixer import build_backbone, build_head, build_method, resize_tokens
from passl_mixer.data import Loader, build_dataset, build_views
from passl_mixer.evaluation.features import extract
from passl_mixer.images import to_images
from passl_mixer.training.optim import build_optimizer, learning_rate

SIZE, BATCH = 28, 100
CASES = [(SIZE, "interpolate"), (32, "interpolate"), (56, "interpolate"), (56, "blocks")]


def train(name: str, epochs: int, seed: int):
    """The trained backbone and classifier."""
    paddle.seed(seed)
    backbone = build_backbone({"name": name, "img_size": SIZE})
    head = build_head({"name": "linear", "num_classes": 10}, backbone.num_features)
    method = build_method("supervised", backbone, head)
    optimizer = build_optimizer({"name": "adamw", "weight_decay": 0.05}, method.trainable_parameters())
    views = build_views({"name": "inception", "img_size": SIZE, "crop_min": 0.5})
    loader = Loader(build_dataset("fashion_mnist_mini"), views, batch_size=BATCH, seed=seed, num_workers=1,
                    shuffle=True, drop_last=True)
    for step in range(epochs * len(loader)):
        if step % len(loader) == 0:
            batches = loader.epoch(step // len(loader))
        (pictures,), labels = next(batches)
        method([to_images(pictures, views.mean, views.std)], paddle.to_tensor(labels))["loss"].backward()
        optimizer.step(learning_rate(step, base=2e-3, total_steps=epochs * len(loader), warmup_steps=len(loader)))
        optimizer.clear_grad()
    return backbone, head


def accuracy(backbone, head, size: int) -> float:
    """Top-1 on the test images at ``size`` pixels, in %."""
    backbone.eval()
    scores, labels = extract(lambda images: head(backbone(images)), build_dataset("fashion_mnist_mini", "test"),
                             build_views({"name": "center_crop", "img_size": size}), batch_size=250)
    return round(100 * float((scores.argmax(axis=1) == labels).mean()), 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--backbone", default="mlp_mixer_nano", help="another size-bound network with patches of 4")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        started = time.perf_counter()
        backbone, head = train(arguments.backbone, arguments.epochs, seed)
        seconds = round(time.perf_counter() - started)
        found = {f"{size} px, {scheme}": accuracy(resize_tokens(backbone, size, scheme=scheme), head, size)
                 for size, scheme in CASES}
        print(json.dumps({"backbone": arguments.backbone, "seed": seed, "train_seconds": seconds, "top1": found}),
              flush=True)


if __name__ == "__main__":
    main()
