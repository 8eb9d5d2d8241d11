"""Loss and kNN accuracy of runs against training time, as a picture (needs matplotlib, extra "dev").

python tools/plot_log.py runs/cifar10_mlp_mixer_simclr -o curve.png [--line "raw pixels=0.30"]
"""
import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read(run: Path) -> tuple:
    """``(training lines, evaluation lines)`` of a run folder."""
    lines = [json.loads(text) for text in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [x for x in lines if "loss" in x], [x for x in lines if "knn" in x]


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write: .png, .svg or .pdf")
    parser.add_argument("--line", action="append", default=[], metavar="NAME=VALUE",
                        help="a horizontal line in the accuracy panel, e.g. 'raw pixels=0.30'")
    arguments = parser.parse_args()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for run in arguments.runs:
        training, evaluation = read(run)
        left.plot([x["step"] for x in training], [x["loss"] for x in training], lw=1, label=run.name)
        right.plot([x["step"] for x in evaluation], [x["knn"] for x in evaluation], "o-", ms=3, label=run.name)
    for text in arguments.line:
        name, _, value = text.partition("=")
        right.axhline(float(value), color="0.5", ls="--", lw=1)
        right.text(0, float(value), f" {name} {float(value):.3f}", va="bottom", color="0.3", fontsize=8)
    left.set(xlabel="step", ylabel="training loss (nats)")
    right.set(xlabel="step", ylabel="kNN accuracy", ylim=(0, None))
    for axes in (left, right):
        axes.set_xlim(0, None)
        axes.grid(alpha=0.3)
    right.legend(loc="lower right", fontsize=8)
    figure.savefig(arguments.output, dpi=130)
    print(arguments.output)


if __name__ == "__main__":
    main()
