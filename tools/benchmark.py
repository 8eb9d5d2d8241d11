"""How fast this is, as ratios a stranger can measure: suites of our own, and peers in environments of theirs.

python tools/benchmark.py [SUITE ...]                                    (tuning, where none is named)
python tools/benchmark.py backbones --backbones cycle_mlp_b1 --repeats 9
python tools/benchmark.py --against timm --against passl:/path/to/PASSL --peer-python /path/to/python
python tools/benchmark.py --targets --peer-python /path/to/python --against passl:/path/to/PASSL --json results.json
python tools/benchmark.py --page results.json docs/performance.md

The environment of ``--peer-python``: ``pip install torch torchvision timm lightly albumentations faiss-cpu``, or those
of them that are needed. Peers run as they come from there, on as many threads as our side.

Two sides take turns, one measured step each, so that a change of the machine's speed falls on both; a ratio is that of
neighbouring steps. Standard output gets one JSON object a comparison: suite, case, ours, peer, metric, ratio (median,
min, max), repeats, machine. The parts are in tools/bench, what runs in a peer's environment is in tools/peers.
"""
import argparse
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench import against, page, suites, systems, targets
from bench.turns import ROOT, ChildFailed

from passl_mixer.errors import BadInput, nearest

SUITES = {"backbones": suites.backbones, "methods": suites.methods, "after_step": suites.after_step,
          "views": suites.views, "export": systems.export, "scaling": systems.scaling, "growth": systems.growth,
          "recompute": systems.recompute, "variants": systems.variants, "tuning": systems.tuning,
          "ways": systems.ways}
# The backbones of a suite where none are named; the others take suites.BACKBONES.
ITS_BACKBONES = {"methods": ("mlp_mixer_nano@32",), "tuning": ("mlp_mixer_b16", "mlp_mixer_nano@32"),
                 "ways": ("mlp_mixer_s16", "mlp_mixer_nano@32"),
                 **dict.fromkeys(("after_step", "scaling", "growth", "recompute"), ("mlp_mixer_b16",))}
ON_GPU = ("backbones", "growth", "recompute", "variants", "ways")      # those that wait for the device; not run on one


def machine(threads: int) -> dict:
    """What the numbers depend on."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    versions = {}
    for name in ("paddlepaddle", "paddlepaddle-gpu"):
        try:
            versions["paddle"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True,
                          check=False)
    commit = {"commit": done.stdout.strip()} if done.returncode == 0 else {}
    return {"cpu": found.group(1) if found else platform.machine(), "cores": against.threads_for(None),
            "threads": threads, "python": platform.python_version(), **versions, **commit,
            "load": round(os.getloadavg()[0], 2)}


def parse_arguments(arguments) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--against", action="append", default=[], metavar="PEER",
                        help="timm, torch_cycle, lightly, torchvision, albumentations, views_peers, faiss, "
                             "passl:FOLDER or paddlevit:FOLDER; repeatable")
    parser.add_argument("--peer-python", metavar="PATH",
                        help="interpreter of an environment with torch, timm, torchvision, albumentations, faiss-cpu "
                             "(and lightly)")
    parser.add_argument("--targets", action="store_true", help="measure everything that has a target, in order")
    parser.add_argument("--target", choices=targets.TARGETS, metavar="NAME",
                        help=f"measure what one target needs: {', '.join(targets.TARGETS)}")
    parser.add_argument("--backbones", nargs="+", metavar="NAME[@PIXELS]", help="instead of each suite's own")
    parser.add_argument("--methods", nargs="+", choices=suites.METHODS, default=list(suites.METHODS))
    parser.add_argument("--recipes", nargs="+", choices=suites.RECIPES, default=list(suites.RECIPES))
    parser.add_argument("--batch", type=int, help="instead of each suite's own")
    parser.add_argument("--repeats", type=int, default=5, help="measured rounds, after the warm-up")
    parser.add_argument("--min-seconds", type=float, default=0.5,
                        help="a step is repeated until one measurement takes about this long")
    parser.add_argument("--threads", type=int, help="of both sides; the physical cores where not given")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"),
                        help="of our side; on a gpu, bf16, and the share of peak is model FLOP utilisation (not run)")
    parser.add_argument("--peak-tflops", type=float,
                        help="the device's peak, for the share in suite backbones; else a matrix product is measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the records to a file, one line each")
    parser.add_argument("--page", nargs=2, type=Path, metavar=("RESULTS", "PAGE"),
                        help="write the page from such a file")
    return parser.parse_args(arguments)


def gpus() -> int:
    """How many GPUs this Paddle sees."""
    import paddle

    return paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0


def settings_of(options: argparse.Namespace) -> suites.Settings:
    """Settings from the command line; ``BadInput`` for what cannot be."""
    for name, value in (("repeats", options.repeats), ("batch", options.batch), ("threads", options.threads)):
        if value is not None and value < 1:
            raise BadInput(f"--{name} is {value}, expected 1 or more")
    for name in options.suites:
        if name not in SUITES:
            raise BadInput(f"unknown suite {name!r}{nearest(name, SUITES)}")
    if options.device == "gpu" and not (options.suites and set(options.suites) <= set(ON_GPU)):
        raise BadInput(f"--device gpu was given for something else; expected suites of {', '.join(ON_GPU)} only")
    if options.device == "gpu" and not gpus():
        raise BadInput("--device gpu was given, but this Paddle sees 0 GPUs; install paddlepaddle-gpu or leave it out")
    _, checkouts = against.parse(options.against)
    return suites.Settings(
        repeats=options.repeats, threads=against.threads_for(options.threads), device=options.device,
        backbones=tuple(options.backbones or suites.BACKBONES), methods=options.methods, recipes=options.recipes,
        batch=options.batch, min_seconds=options.min_seconds, peak_tflops=options.peak_tflops,
        peer_python=options.peer_python, checkouts=checkouts)


def measurements(options: argparse.Namespace, settings: suites.Settings):
    """``(name, iterable of records)`` of everything that was asked for."""
    if options.targets or options.target:
        yield from targets.measure(settings, options.target)
        return
    peers, _ = against.parse(options.against)
    for name in options.suites or ([] if peers else ["tuning"]):
        its = {} if options.backbones else {"backbones": ITS_BACKBONES.get(name, suites.BACKBONES)}
        yield name, SUITES[name](replace(settings, **its))
    for name in peers:
        yield name, against.AGAINST[name](settings)


def verdict(record: dict) -> str:
    """A target's record in words."""
    words = {True: "reached", False: "not reached", None: "too few repeats to say"}[record["reached"]]
    return f"{record['target']}: {page.ratio(record)}, target {record['goal']}: {words}"


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns how many of the measurements failed."""
    settings, failed = settings_of(options), 0
    for name, records in measurements(options, settings):
        try:
            for record in records:
                record = targets.mark({**record, "machine": machine(settings.threads)})
                line = json.dumps(record)
                print(line, flush=True)
                if "target" in record:
                    print(verdict(record), file=sys.stderr, flush=True)
                if options.json:
                    with options.json.open("a", encoding="utf-8") as file:
                        file.write(line + "\n")
        except (BadInput, ChildFailed) as error:      # one peer that is missing does not cost the others' numbers
            failed += 1
            print(f"benchmark: {name} was not measured: {error}", file=sys.stderr, flush=True)
    return failed


def main(arguments=None) -> int:
    """Exit code 0; 1 where something could not be measured, 2 for bad input."""
    options = parse_arguments(arguments)
    try:
        if options.page:
            page.write(*options.page)
            return 0
        return 1 if run(options) else 0
    except BadInput as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
