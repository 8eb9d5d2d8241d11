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
    parser.add_argument("--no-loss", action="store_true",
                        help="the accuracy panel alone; the losses of different methods do not compare")
    arguments = parser.parse_args()
    count = 1 if arguments.no_loss else 2
    figure, panels = plt.subplots(1, count, figsize=(1.5 + 3.75 * count, 3.4), constrained_layout=True, squeeze=False)
    right = panels[0, -1]
    for run in arguments.runs:
        training, evaluation = read(run)
        if not arguments.no_loss:
            panels[0, 0].plot([x["step"] for x in training], [x["loss"] for x in training], lw=1, label=run.name)
        right.plot([x["step"] for x in evaluation], [x["knn"] for x in evaluation], "o-", ms=3, label=run.name)
    for text in arguments.line:
        name, _, value = text.partition("=")
        right.axhline(float(value), color="0.5", ls="--", lw=1)
        right.text(0.99, float(value), f"{name} {float(value):.3f}", transform=right.get_yaxis_transform(), ha="right",
                   va="bottom", color="0.3", fontsize=8)
    if not arguments.no_loss:
        panels[0, 0].set(xlabel="step", ylabel="training loss")
    right.set(xlabel="step", ylabel="kNN accuracy", ylim=(0, None))
    for axes in panels[0]:
        axes.set_xlim(0, None)
        axes.grid(alpha=0.3)
    right.legend(loc="lower right", fontsize=8)
    figure.savefig(arguments.output, dpi=130)
    print(arguments.output)


if __name__ == "__main__":
    main()
