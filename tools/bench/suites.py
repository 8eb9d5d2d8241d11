"""What is measured of ours alone. Every suite takes the settings and yields records (``turns.record``)."""
import contextlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Sequence

from bench import pictures
from bench.turns import OURS, Child, record, take_turns
from passl_mixer.errors import BadInput
from passl_mixer.runtime import available_cores

BACKBONES = ("mlp_mixer_b16", "conv_mlp_s", "cycle_mlp_b1", "mlp_mixer_nano@32")
METHODS = ("simclr", "moco", "byol", "simsiam", "moco_v3")
RECIPES = ("simclr", "moco_v1", "moco_v2", "byol", "moco_v3", "inception", "center_crop")
JPEGS, JPEGS_A_STEP = 64, 16
RACES = 3               # runs of each side of a race


@dataclass(frozen=True)
class RaceSettings:
    """What the command line decides for races.

    ``config``: a file in place of the shipped ones. ``data``: folder of CIFAR-10. ``thresholds``: accuracies in place
    of each race's own. ``way``: of PyTorch, or "trial"; None: all. ``epochs``, ``every_epochs``: in place of the
    configuration's. ``repeats``: runs of each side.
    """

    config: Optional[str] = None
    data: Optional[str] = None
    thresholds: Sequence[float] = ()
    way: Optional[str] = None
    epochs: Optional[int] = None
    every_epochs: Optional[int] = None
    repeats: int = RACES


@dataclass(frozen=True)
class Settings:
    """What the command line decides.

    ``backbones``: names, ``@pixels`` where not 224. ``batch``: in place of each suite's own. ``threads``: of both
    sides. ``min_seconds``: a step is repeated until one measurement takes about this long. ``precision``:
    fp32, bf16 or auto; see ``precision_of``. ``checkouts``: peer to folder.
    """

    repeats: int = 5
    threads: int = 1
    device: str = "cpu"
    backbones: Sequence[str] = BACKBONES
    methods: Sequence[str] = METHODS
    recipes: Sequence[str] = RECIPES
    batch: Optional[int] = None
    min_seconds: float = 0.5
    peak_tflops: Optional[float] = None
    peer_python: Optional[str] = None
    precision: Optional[str] = None
    checkouts: dict = field(default_factory=dict)
    race: RaceSettings = RaceSettings()


def sized(name: str) -> tuple:
    """``(backbone entry, pixels)`` of "name" or "name@pixels"."""
    name, _, size = name.partition("@")
    size = int(size) if size else 32 if name.endswith("_nano") else 224
    return {"name": name}, size


def batch_for(settings: Settings, size: int) -> int:
    """The batch asked for; otherwise 8 photographs, or 256 small pictures."""
    return settings.batch or (8 if size > 64 else 256)


def has_bf16() -> bool:
    """Whether this processor multiplies bfloat16."""
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "avx512_bf16" in cpu.read_text(encoding="utf-8").split()


def precision_of(settings: Settings, default: str) -> str:
    """The precision of our side, "fp32" or "bf16"; "auto" is bf16 on GPUs and where the processor multiplies it.

    Args:
        settings: theirs counts where it is given.
        default: fp32, bf16 or auto, where it is not.
    """
    asked = settings.precision or ("bf16" if settings.device != "cpu" else default)
    return asked if asked != "auto" else "bf16" if settings.device != "cpu" or has_bf16() else "fp32"


def case_name(backbone: str, what: str, batch: int, size: int) -> str:
    """How a case is called in records."""
    return f"{backbone}, {what}, batch {batch}, {size} px"


def ours(settings: Settings, setup: dict, *, threads: int = 0, **environment: str) -> Child:
    """A process of ours with as many threads as the settings say, or ``threads``."""
    threads = threads or settings.threads
    # as many as there are cores is what the set-up chooses by itself, as for any user
    chosen = {} if threads == available_cores() else {"OMP_NUM_THREADS": str(threads)}
    common = {"device": settings.device, "min_seconds": settings.min_seconds}
    return Child(OURS, {**common, **setup}, changes={**chosen, **environment})


def networks(settings: Settings, entries: dict) -> Child:
    """A process of ours with several networks; see ``networks.py``."""
    return ours(settings, {"kind": "networks", "networks": entries})


def in_one_process(settings: Settings, child: Child, steps: Sequence[str]) -> list:
    """Rows of steps of one process."""
    return take_turns([lambda name=name: child.step(name) for name in steps], settings.repeats, pause=0.0)


def share_of_peak(ours_: dict, peak: dict) -> float:
    """Arithmetic done per second, over that of the matrix products."""
    return ours_["flop"] / ours_["seconds"] / (peak["flop"] / peak["seconds"])


WORDS = {"infer": "inference", "train": "training step"}


def backbones(settings: Settings, steps: Sequence[str] = ("infer", "train")):
    """Inference and training step: images/s, parts, memory, share of the matrix-product peak of the same process."""
    precision = precision_of(settings, "fp32")
    peer = "matrix products" if precision == "fp32" else f"matrix products in {precision}"
    for name in settings.backbones:
        backbone, size = sized(name)
        batch = batch_for(settings, size)
        for step in steps:
            entry = {"backbone": backbone, "batch": batch, "size": size, "data": True, "precision": precision,
                     "steps": [step, "peak"]}
            with networks(settings, {"a": entry}) as child:
                rows = in_one_process(settings, child, [f"a.{step}", "a.peak"])
            _in_precision(rows[-1][0], precision)
            if settings.peak_tflops:
                rows = [(row[0], {"seconds": 1.0, "flop": settings.peak_tflops * 1e12}) for row in rows]
            what = WORDS[step] if precision == "fp32" else f"{WORDS[step]} in {precision}"
            yield record("backbones", case_name(backbone["name"], what, batch, size), rows, peer=peer,
                         metric="share of peak", value=share_of_peak)


def _in_precision(answer: dict, precision: str) -> None:
    """Refuse a record in another precision than its name says."""
    if precision == "bf16" and answer["precision"] != "bfloat16":
        raise BadInput(f"bf16 was asked for, and this Paddle computed in {answer['precision']}; expected a processor "
                       "and a version with bfloat16, or --precision fp32")


def method_model(method: str, backbone: dict, size: int) -> dict:
    """The model section of a method around a backbone, with the head and options of its paper where they cost time."""
    wide = {"name": "mlp", "layers": 2, "hidden": 4096, "norm": "bn"}
    three = {"layers": 3, "last_norm": True, "last_affine": False}
    heads = {"simclr": {"name": "mlp", "out": 128}, "moco": {"name": "mlp", "out": 128, "norm": None},
             "byol": {**wide, "out": 256},
             "simsiam": {**wide, **three, "hidden": 2048, "out": 2048}, "moco_v3": {**wide, **three, "out": 256}}
    options = {"byol": {"predictor": wide}, "simsiam": {"predictor": {"name": "mlp", "layers": 2, "hidden": 512}}}
    bound = {"img_size": size} if backbone["name"].startswith(("mlp_mixer", "resmlp", "gmlp", "vip", "vit")) else {}
    return {"backbone": {**backbone, **bound}, "head": heads[method],
            "method": {"name": method, **options.get(method, {})}}


def methods(settings: Settings):
    """An optimiser step of every method over the bare forward and backward of its two views."""
    for name in settings.backbones:
        backbone, size = sized(name)
        batch = batch_for(settings, size)
        for method in settings.methods:
            setup = {"kind": "method", "model": method_model(method, backbone, size), "batch": batch, "size": size}
            with ours(settings, setup) as child:
                rows = in_one_process(settings, child, ["step", "bare"])
            yield record("methods", case_name(backbone["name"], f"{method} step", batch, size), rows,
                         peer="two views forward and backward", metric="time over bare",
                         value=lambda a, b: a["seconds"] / b["seconds"])


def after_step(settings: Settings):
    """The share of a MoCo step that its moving average and queue take: Mixer-B/16, 65,536 keys."""
    for name in settings.backbones:
        backbone, size = sized(name)
        batch = settings.batch or 32
        setup = {"kind": "method", "model": method_model("moco", backbone, size), "batch": batch, "size": size}
        with ours(settings, setup) as child:
            rows = [(row[0], row[0]) for row in in_one_process(settings, child, ["step"])]
        yield record("methods", case_name(backbone["name"], "moco step", batch, size), rows, peer="the whole step",
                     metric="share of after_step", value=lambda a, b: a["parts"]["after_step"] / b["seconds"])


@contextlib.contextmanager
def jpegs(count: int = JPEGS):
    """A folder of JPEG files, 500 x 375, and their paths; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="passl_mixer_jpegs_") as folder:
        yield folder, pictures.write_jpegs(Path(folder), count)


def views_child(settings: Settings, folder: str, recipe: dict) -> Child:
    """A process that makes views on one thread."""
    setup = {"kind": "views", "folder": folder, "views": {**recipe, "img_size": 224}, "images": JPEGS_A_STEP}
    return ours(settings, {**setup, "min_seconds": 0.0, "device": "cpu"}, threads=1)


def views(settings: Settings):
    """Images a second of every recipe, one thread, from JPEG files to float32 tensors at 224 px."""
    with jpegs() as (folder, _):
        for recipe in settings.recipes:
            with views_child(settings, folder, {"name": recipe}) as child:
                rows = in_one_process(settings, child, ["step"])
            yield record("views", f"{recipe}, 500x375 JPEG to 224 px, one thread", rows)
