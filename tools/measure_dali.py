"""How far DALI's views are from the other loader's, on the CPU (``data.loader: dali``; needs the extra ``dali``).

python tools/measure_dali.py [--images 8] [--recipes simclr moco_v1 moco_v2 byol moco_v3]

Made pictures as JPEGs of three sizes, views of 224 px, both loaders with the same seed. Printed for each size and
recipe is the mean absolute difference in levels of 255, over all views and of the one that differs most: where both
decode the whole files, and where the other loader decodes at a fraction (``decode_reduced``). One JSON object a line.
"""
import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from bench.pictures import write_jpegs

from passl_mixer.data import Loader, build_dataset, build_views
from passl_mixer.data.dali import DaliLoader

SIZES = [(375, 500), (768, 1024), (1500, 2000)]
RECIPES = ["inception", "simclr", "moco_v1", "moco_v2", "byol", "moco_v3"]


def differences(root: Path, recipe: str, reduced: bool) -> np.ndarray:
    """Of each view of each image, in levels."""
    dataset = build_dataset({"name": "image_folder", "root": str(root), "decode_reduced": reduced})
    style = {"style": "torchvision"} if recipe in ("simclr", "byol") else {}
    ours = Loader(dataset, build_views({"name": recipe, **style}), batch_size=4, seed=0, num_workers=1, shuffle=False,
                  drop_last=False)
    pairs = zip(ours.epoch(0), DaliLoader(ours).epoch(0))
    return np.concatenate([np.abs(a.astype(np.int16) - b).mean((1, 2, 3))
                           for (first, _), (second, _) in pairs for a, b in zip(first, second)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    arguments = parser.parse_args()
    for height, width in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            write_jpegs(Path(folder), arguments.images, height=height, width=width)
            for recipe in arguments.recipes:
                row = {"size": [width, height], "recipe": recipe}
                for name, reduced in (("both_whole", False), ("other_reduced", True)):
                    found = differences(Path(folder), recipe, reduced)
                    row[name] = [round(float(found.mean()), 2), round(float(found.max()), 2)]
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
