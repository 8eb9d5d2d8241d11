"""Time to accuracy: seconds from the command to an accuracy, a training run of ours against the same recipe on PyTorch.

Every run is a fresh process, and its clock starts before the process does: imports, data and compiling count. Both
sides are evaluated after the same epochs, by the same kNN on features of the same images; those evaluations count.
The accuracy with one label per class is computed when the clock has stopped, from the encoders of those moments.
PyTorch's compiled programs are in its cache from a trial before, as our native kernels are compiled before.
"""
import json
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Sequence

from bench.four_ways import WAYS
from bench.suites import Settings, ours
from bench.turns import PEERS, ROOT, environment, spread
from bench.watch import watch
from passl_mixer.errors import BadInput
from passl_mixer.runtime import available_cores

TRIAL_STEPS, WORKERS = 30, (1, 2)
KNN = re.compile(r"epoch (\d+)/\d+  kNN accuracy ([\d.]+)")
LABELS = re.compile(r"epoch (\d+)/\d+  labels_1 ([\d.]+)")
TRIAL = re.compile(r"seconds (per) step ([\d.]+)")


@dataclass(frozen=True)
class Race:
    """What is run, and how far.

    ``item``: "knn" or "labels_1". ``thresholds``: accuracies, 0 to 1. ``overrides``: of the configuration, on both
    sides.
    """

    name: str
    config: Path
    item: str
    thresholds: Sequence[float]
    overrides: Sequence[str] = ()


# on the 5,000 images that the script on PyTorch reads, all of them with labels
MINI = ("data.dataset={name: fashion_mnist_mini}", "evaluate.labelled_images=null")
QUICKSTART = Race("quickstart", ROOT / "configs" / "quickstart.yaml", "labels_1", (0.5,), MINI)
CIFAR10 = Race("cifar10", ROOT / "configs" / "cifar10" / "mlp_mixer_simclr.yaml", "knn", (0.45, 0.55))


def quickstart(settings: Settings):
    """The race of the quickstart: to 50 % with one label per class."""
    yield from run(settings, QUICKSTART)


def cifar10(settings: Settings):
    """The race on CIFAR-10: to two kNN accuracies."""
    if not settings.race.data:
        raise BadInput("the race on CIFAR-10 needs its binary files; expected --data FOLDER")
    yield from run(settings, CIFAR10)


def races(settings: Settings):
    """The race of ``--config``; without it the quickstart's, and CIFAR-10's where ``--data`` is given."""
    if settings.race.config:
        from passl_mixer.config import get_config

        path = Path(settings.race.config)
        like = CIFAR10 if get_config(path).data.dataset.name == "cifar10" else QUICKSTART
        yield from run(settings, replace(like, config=path, name=path.stem))
        return
    yield from quickstart(settings)
    if settings.race.data:
        yield from cifar10(settings)


def run(settings: Settings, race: Race):
    """The records of one race, one a threshold."""
    if not settings.peer_python:
        raise BadInput("a race needs PyTorch; expected --peer-python /path/to/python of an environment with torch, "
                       "timm, torchvision and lightly")
    race = replace(race, thresholds=settings.race.thresholds or race.thresholds, overrides=_overrides(settings, race))
    with tempfile.TemporaryDirectory(prefix="passl_mixer_race_") as name:
        folder = Path(name)
        peer = _Peer(settings, race, folder)
        ways = peer.ways
        mine, theirs = [], {way: [] for way in ways}
        for repeat in range(settings.race.repeats):
            mine.append(our_curve(settings, race, folder / f"ours_{repeat}", repeat))
            for way in ways:
                theirs[way].append(peer.curve(way, repeat))
            if repeat == 0:                         # all ways run once, the one that was first there every time
                ways = [min(ways, key=lambda way: _rank(theirs[way][0], race.thresholds))]
        for threshold in race.thresholds:
            yield _record(race, threshold, mine, theirs, ways[0], peer.facts)


def _overrides(settings: Settings, race: Race) -> list:
    data = settings.race.data and race.item == "knn"
    given = {"data.dataset.root": str(Path(settings.race.data).absolute()) if data else None,
             "schedule.epochs": settings.race.epochs, "evaluate.every_epochs": settings.race.every_epochs}
    return [f"{key}={value}" for key, value in given.items() if value] + ["evaluate.at_end=[]"]


def seconds_to(curve: Sequence[dict], threshold: float) -> Optional[float]:
    """Seconds until a curve is at an accuracy; None if it never is."""
    return next((point["seconds"] for point in curve if point["accuracy"] >= threshold), None)


def _rank(curve: Sequence[dict], thresholds: Sequence[float]) -> tuple:
    """Less is better: thresholds missed, seconds to the last that was reached, seconds to the end."""
    times = [seconds_to(curve, threshold) for threshold in thresholds]
    reached = [seconds for seconds in times if seconds is not None]
    return len(times) - len(reached), max(reached, default=0.0), curve[-1]["seconds"]


def _relabelled(points: list, accuracies: dict) -> list:
    """The points with the accuracies of the item that was computed later."""
    return [{**point, "accuracy": accuracies[point["epoch"]]} for point in points]


def our_curve(settings: Settings, race: Race, folder: Path, seed: int) -> list:
    """Points (epoch, seconds, accuracy) of a run of ours.

    Args:
        settings: for threads and precision.
        race: what is run.
        folder: of the run; it must not exist.
        seed: of the run.
    """
    knn, precision = race.item == "knn", settings.precision
    chosen = [*race.overrides, f"output_dir={folder}", f"seed={seed}", *([f"train.precision={precision}"] if precision
                                                                       else [])]
    if not knn:
        from passl_mixer.config import get_config

        every = get_config(race.config, race.overrides).evaluate.every_epochs
        chosen += [f"train.checkpoint_every_epochs={every}", "train.keep_checkpoints=100000"]
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools" / "train.py"), "-c", str(race.config)]
    threads = {} if settings.threads == available_cores() else {"OMP_NUM_THREADS": str(settings.threads)}
    points, _ = watch([*command, *(word for one in chosen for word in ("-o", one))], KNN, changes=threads,
                      until=max(race.thresholds) if knn else None)
    return points if knn else _relabelled(points, _our_labels(settings, folder))


def _our_labels(settings: Settings, folder: Path) -> dict:
    """``{epoch: accuracy with one label per class}`` of the checkpoints where kNN was evaluated."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = {str(line["epoch"] + 1): line["step"] for line in lines if "knn" in line}
    files = {epoch: str(folder / "checkpoints" / f"step_{step:07d}.safetensors") for epoch, step in steps.items()}
    with ours(settings, {"kind": "labels", "config": str(folder / "config.yaml"), "checkpoints": files}) as child:
        return child.step()["accuracies"]


class _Peer:
    """Runs on PyTorch, with as many worker processes as are fastest.

    Args:
        settings, race: what is run.
        folder: where PyTorch keeps its compiled programs.
    Attributes:
        ways: those to run.
        facts: workers, the seconds of a step in the trial that chose them and compiled, versions.
    """

    def __init__(self, settings: Settings, race: Race, folder: Path):
        from bench.race_recipe import setup_of
        from passl_mixer.build import build_model, resolve
        from passl_mixer.config import get_config
        from passl_mixer.surgery.macs import count_parameters

        config = resolve(get_config(race.config, race.overrides))
        method = build_model(config)
        self._setup = {**setup_of(config, count_parameters(method.backbone) + count_parameters(method.head)),
                       "item": race.item, "threads": settings.threads, "trial_steps": 0}
        self._command = [settings.peer_python, "-W", "ignore", str(PEERS / "torch_race.py")]
        self._changes, self._race = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}, race
        steps = {workers: self._trial("eager", workers) for workers in WORKERS}
        self._workers = min(steps, key=steps.get)
        asked = settings.race.way
        self.ways = list(WAYS) if asked in (None, "trial") else [asked]
        steps = {way: self._trial(way, self._workers) for way in self.ways}
        if asked == "trial":
            self.ways = [min(steps, key=steps.get)]
        self.facts = {"workers": self._workers, "seconds_per_step_in_trial": steps,
                      "versions": _versions(settings.peer_python)}

    def _trial(self, way: str, workers: int) -> float:
        setup = {**self._setup, "way": way, "workers": workers, "seed": 0, "trial_steps": TRIAL_STEPS}
        points, _ = watch(self._command, TRIAL, line=json.dumps(setup), changes=self._changes)
        return points[0]["accuracy"]

    def curve(self, way: str, seed: int) -> list:
        """Points (epoch, seconds, accuracy) of a run in a way."""
        setup, knn = {**self._setup, "way": way, "workers": self._workers, "seed": seed}, self._race.item == "knn"
        points, labels = watch(self._command, KNN, line=json.dumps(setup), changes=self._changes, after=LABELS,
                               until=max(self._race.thresholds) if knn else None)
        return points if knn else _relabelled(points, labels)


def _versions(python: str) -> dict:
    code = "import json, torch_networks; print(json.dumps(torch_networks.versions()))"
    done = subprocess.run([python, "-W", "ignore", "-c", code], cwd=PEERS, env=environment(), text=True, check=True,
                          capture_output=True)
    return json.loads(done.stdout)


def _record(race: Race, threshold: float, mine: list, theirs: dict, fastest: str, facts: dict) -> dict:
    """The record of a threshold; without a ratio where a side missed it in one of its runs."""
    def side(curves: list) -> dict:
        times = [seconds_to(curve, threshold) for curve in curves]
        reached = [seconds for seconds in times if seconds is not None]
        seconds = statistics.median(reached) if len(reached) == len(times) else None
        return {"seconds": seconds, "runs": times, "curves": curves}

    made = {"suite": "race", "case": f"{race.name}, {race.item} {threshold:g}", "ours": side(mine),
            "peer": {"name": f"timm, torchvision v2, lightly on PyTorch, {fastest}", **facts, **side(theirs[fastest])},
            "metric": "time to accuracy", "fastest": fastest,
            "ways": {way: side(curves)["seconds"] for way, curves in theirs.items()}, "repeats": len(mine)}
    pairs = list(zip(made["ours"]["runs"], made["peer"]["runs"]))
    if all(None not in pair for pair in pairs):
        made["ratio"] = spread([peer / own for own, peer in pairs])
    missed = [name for name in ("ours", "peer") if None in made[name]["runs"]]
    return {**made, **({"missed": f"{' and '.join(missed)} did not reach it within the epochs"} if missed else {})}
