"""What the CPU set-up of ``passl_mixer.runtime`` is worth: training steps with it on against off, in one run.

python tools/benchmark.py [--repeats 5]

Each side is a process of its own (the set-up happens at import). The two take turns, one measured step each, so that a
change of the machine's speed falls on both; printed are the ratios off / on of neighbouring steps, median and range.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 4         # steps until the memory of a step has been asked for once
CASES = {
    "mlp_mixer_b16, supervised, batch 8, 224 px": ({"name": "mlp_mixer_b16"}, 8, 224),
    "mlp_mixer_nano, supervised, batch 256, 32 px": ({"name": "mlp_mixer_nano"}, 256, 32),
}


def serve(case: str) -> None:
    """Child process: one training step for every line on standard input; prints its seconds."""
    sys.path.insert(0, str(ROOT))
    import paddle

    import passl_mixer  # noqa: F401  (the set-up)
    from passl_mixer import build_backbone, build_head, build_method
    from passl_mixer.optim import build_optimizer

    backbone, batch, size = CASES[case]
    network = build_backbone(backbone)
    head = build_head({"name": "linear", "num_classes": 1000}, network.num_features)
    method = build_method("supervised", network, head)
    optimizer = build_optimizer({"name": "adamw"}, method.trainable_parameters())
    images, labels = paddle.randn([batch, 3, size, size]), paddle.randint(0, 1000, [batch])
    for _ in sys.stdin:
        started = time.perf_counter()
        loss = method([images], labels)["loss"]
        loss.backward()
        optimizer.step(1e-3)
        optimizer.clear_grad()
        float(loss)
        print(time.perf_counter() - started, flush=True)


class Side:
    """A child process that steps when asked."""

    def __init__(self, case: str, tune: str):
        environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--serve", case], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**environment, "PASSL_MIXER_TUNE": tune})

    def step(self) -> float:
        """Seconds of one training step."""
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="measured steps of each side, after the warm-up")
    parser.add_argument("--serve", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    for case in CASES:
        on, off = Side(case, "1"), Side(case, "0")
        pairs = [(on.step(), off.step()) for _ in range(arguments.repeats + WARM_UP)][WARM_UP:]
        ratios = sorted(b / a for a, b in pairs)
        for side in (on, off):
            side.process.stdin.close()
            side.process.wait()
        print(json.dumps({"case": case, "repeats": arguments.repeats,
                          "off_over_on": {"median": round(statistics.median(ratios), 2), "min": round(ratios[0], 2),
                                          "max": round(ratios[-1], 2)},
                          "seconds_on": round(statistics.median(a for a, _ in pairs), 3),
                          "seconds_off": round(statistics.median(b for _, b in pairs), 3)}), flush=True)


if __name__ == "__main__":
    main()
