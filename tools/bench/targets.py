"""What is to be reached on two cores, and which record of which measurement says whether it is."""
from dataclasses import dataclass, replace
from typing import Callable, Optional

from bench import against, race, suites, systems
from bench.suites import Settings

LEAST_REPEATS = 5       # fewer are no measurement


@dataclass(frozen=True)
class Target:
    """One line of the table: the ratio of a record is to be ``sense`` (">=" or "<=") ``value``.

    ``run`` names the measurement (``RUNS``); ``suite``, ``case`` and ``metric`` are those of its record.
    """

    what: str
    other: str
    sense: str
    value: float
    run: str
    suite: str
    case: str
    metric: str = "speed"
    least_repeats: int = LEAST_REPEATS

    def fits(self, record: dict) -> bool:
        """Whether a record is this target's."""
        return (record["suite"], record["case"], record.get("metric")) == (self.suite, self.case, self.metric)

    def reached(self, record: dict) -> Optional[bool]:
        """Whether the median of a record is on the right side; None if that cannot be said.

        It cannot where the repeats are too few, or where the other side of a race did not arrive.
        """
        if record["repeats"] < self.least_repeats:
            return None
        if "ratio" not in record:
            return False if None in record["ours"].get("runs", ()) else None
        median = record["ratio"]["median"]
        return median >= self.value if self.sense == ">=" else median <= self.value

    def goal(self) -> str:
        """The target as text."""
        return f"{self.sense} {self.value:g}"


def _for(run: Callable, *backbones: str, **options) -> Callable:
    """A measurement of some backbones; ``options`` are the run's own."""
    return lambda settings: run(replace(settings, backbones=backbones), **options)


def _in(precision: str, run: Callable) -> Callable:
    """A measurement in a precision, whatever the command line says."""
    return lambda settings: run(replace(settings, precision=precision))


# One network of every family (every class of backbones/), and of them those that timm has.
FAMILIES = ("mlp_mixer_b16", "conv_mlp_s", "cycle_mlp_b1", "conv_mixer_768_32", "resmlp_s12", "gmlp_s16", "vip_s7",
            "s2_mlp_v1_deep", "s2_mlp_v2_small", "hire_mlp_tiny", "wave_mlp_t", "as_mlp_t", "vit_s_16", "swin_t",
            "resnet50")
TIMM_FAMILIES = ("resmlp_s12", "gmlp_s16", "conv_mixer_768_32", "vit_s_16", "swin_t", "resnet50")
# Measurements, in the order they are made; one may serve several targets.
RUNS = {
    "timm": _for(against.timm, "mlp_mixer_b16"),
    "lightly": against.lightly,
    # one measurement each: a network that PyTorch does not compile costs no other its numbers
    **{f"timm_{name}": _for(against.timm, name, steps=("train",)) for name in TIMM_FAMILIES},
    "torch_cycle": against.torch_cycle,
    "peak": _in("fp32", _for(suites.backbones, "mlp_mixer_b16")),
    "peak_families": _in("fp32", _for(suites.backbones, *FAMILIES[1:], steps=("train",))),
    "peak_bf16": _in("bf16", _for(suites.backbones, "mlp_mixer_b16")),
    "passl": against.passl,
    "deformable": lambda settings: systems.variants(settings, only="deformable"),
    "plain": lambda settings: systems.variants(settings, only="plain"),
    "views": against.views_peers,
    "search": against.faiss,
    "after_step": _for(suites.after_step, "mlp_mixer_b16"),
    "export": _for(systems.export, "mlp_mixer_b16", "conv_mlp_s", "cycle_mlp_b1"),
    "recompute": _for(systems.recompute, "mlp_mixer_b16"),
    "growth": _for(systems.growth, "mlp_mixer_b16"),
    "scaling": _for(systems.scaling, "mlp_mixer_b16"),
    "race_quickstart": race.quickstart,
    "race_cifar10": race.cifar10,
}
_B16, _JPEG = "mlp_mixer_b16, {}, batch {}, 224 px", "{}, 500x375 JPEG to 224 px, one thread"
_PIL = "torchvision v2 on PIL"
_VIEWS = "the fastest of torchvision v2 on PIL and on tensors, and albumentations"
_SEARCH = "20 nearest of {} features of {} for {} queries"
_PEAK, _PEAK_BF16 = "measured peak, same process", "measured bf16 peak, same process"
_FASTEST = "PyTorch, fastest of four ways"
_STEP = "{}, training step, batch 8, 224 px"


def _against_torch(name: str, words: str, value: float, suite: str) -> Target:
    """The row of a family's training step."""
    run = f"timm_{name}" if suite == "timm" else suite
    return Target(f"{words} training step, batch 8", _FASTEST, ">=", value, run, suite, _STEP.format(name))


def _share(name: str) -> Target:
    """The row of a family's share of the float32 peak."""
    mixer = name == "mlp_mixer_b16"
    return Target(f"share of the float32 peak, {name} training step", _PEAK, ">=", 0.8 if mixer else 0.6,
                  "peak" if mixer else "peak_families", "backbones", _STEP.format(name), "share of peak")


def _race(name: str, words: str, case: str) -> Target:
    """The row of a race."""
    return Target(words, _FASTEST, ">=", 1.5, f"race_{name}", "race", case, "time to accuracy", suites.RACES)


TARGETS = {
    "mixer_training": Target("Mixer-B/16 training step, batch 8", "timm on " + _FASTEST, ">=", 1.2, "timm", "timm",
                             _B16.format("training step", 8)),
    "mixer_inference": Target("Mixer-B/16 inference, batch 8", "timm on " + _FASTEST, ">=", 1.1, "timm", "timm",
                              _B16.format("inference", 8)),
    "simclr": Target("Mixer-nano SimCLR step with views, batch 256, 32 px", "timm and lightly's loss on " + _FASTEST,
                     ">=", 1.5, "lightly", "lightly", "mlp_mixer_nano, simclr step with views, batch 256, 32 px"),
    "resmlp_torch": _against_torch("resmlp_s12", "ResMLP-S12", 1.0, "timm"),
    "gmlp_torch": _against_torch("gmlp_s16", "gMLP-S/16", 1.0, "timm"),
    "conv_mixer_torch": _against_torch("conv_mixer_768_32", "ConvMixer-768/32", 1.0, "timm"),
    "vit_torch": _against_torch("vit_s_16", "ViT-S/16", 1.0, "timm"),
    "swin_torch": _against_torch("swin_t", "Swin-T", 1.0, "timm"),
    "resnet_torch": _against_torch("resnet50", "ResNet-50", 1.0, "timm"),
    "cycle_torch": _against_torch("cycle_mlp_b1", "CycleMLP-B1", 1.2, "torch_cycle"),
    "conv_torch": _against_torch("conv_mlp_s", "ConvMLP-S", 1.2, "torch_cycle"),
    **{f"peak_{name}": _share(name) for name in FAMILIES},
    "peak_forward": Target("share of the float32 peak, Mixer-B/16 forward", _PEAK, ">=", 0.75, "peak", "backbones",
                           _B16.format("inference", 8), "share of peak"),
    "peak_bf16_training": Target("share of the bf16 peak, Mixer-B/16 training step", _PEAK_BF16, ">=", 0.6, "peak_bf16",
                                 "backbones", _B16.format("training step in bf16", 8), "share of peak"),
    "peak_bf16_forward": Target("share of the bf16 peak, Mixer-B/16 forward", _PEAK_BF16, ">=", 0.7, "peak_bf16",
                                "backbones", _B16.format("inference in bf16", 8), "share of peak"),
    "race_quickstart": _race("quickstart", "race: quickstart to 50 % with one label per class",
                             "quickstart, labels_1 0.5"),
    "race_cifar10_45": _race("cifar10", "race: CIFAR-10 to kNN 0.45", "cifar10, knn 0.45"),
    "race_cifar10_55": _race("cifar10", "race: CIFAR-10 to kNN 0.55", "cifar10, knn 0.55"),
    "passl": Target("Mixer-B/16 training step", "PASSL's MlpMixer, Paddle untuned", ">=", 3.0, "passl", "passl",
                    _B16.format("training step", 8)),
    "deformable": Target("CycleMLP-B1 training step, batch 8, 224 px", "the same net with deform_conv2d", ">=", 4.0,
                         "deformable", "variants", "cycle_mlp_b1, training step, batch 8, 224 px"),
    "plain": Target("CycleMLP-B1 forward", "every CycleFC a plain 1x1 linear", ">=", 0.85, "plain", "variants",
                    "cycle_mlp_b1, inference, batch 8, 224 px"),
    **{f"views_{recipe}": Target(f"{recipe} views at 224 px from 500x375 JPEG, per core", _PIL + ", same filter", ">=",
                                 3.0, "views", "views_peers", _JPEG.format(recipe), "speed against " + _PIL)
       for recipe in ("simclr", "moco_v2")},
    **{f"views_{recipe}_fastest": Target(f"{recipe} views, as above", _VIEWS, ">=", 2.0, "views", "views_peers",
                                         _JPEG.format(recipe), "speed against the fastest")
       for recipe in ("simclr", "moco_v2")},
    "search": Target("exact search, 50,000 x 384 features, 10,000 queries, k = 20", "faiss IndexFlatIP", ">=", 0.8,
                     "search", "search", _SEARCH.format("50,000", 384, "10,000")),
    "search_large": Target("exact search, 1,000,000 x 768 features, 1,000 queries, k = 20", "faiss IndexFlatIP", ">=",
                           0.8, "search", "search", _SEARCH.format("1,000,000", 768, "1,000")),
    "after_step": Target("EMA and queue (after_step), B/16, batch 32", "the whole MoCo step", "<=", 0.03, "after_step",
                         "methods", _B16.format("moco step", 32), "share of after_step"),
    "export": Target("exported inference model, Mixer-B/16, batch 8", "our own eager forward", ">=", 1.2, "export",
                     "export", _B16.format("exported", 8)),
    "export_conv": Target("exported inference model, ConvMLP-S, batch 8", "our own eager forward", ">=", 1.2, "export",
                          "export", "conv_mlp_s, exported, batch 8, 224 px"),
    "export_cycle": Target("exported inference model, CycleMLP-B1, batch 8", "our own eager forward", ">=", 1.2,
                           "export", "export", "cycle_mlp_b1, exported, batch 8, 224 px"),
    "recompute_memory": Target("recompute on: peak memory of B/16, batch 32", "recompute off", "<=", 0.45, "recompute",
                               "recompute", _B16.format("recompute", 32), "peak memory"),
    "recompute_time": Target("recompute on: step time of B/16, batch 32", "recompute off", "<=", 1.35, "recompute",
                             "recompute", _B16.format("recompute", 32), "step time"),
    "growth": Target("cost growth, B/16: step time at batch 64 per image", "batch 16", "<=", 1.05, "growth", "scaling",
                     _B16.format("cost growth", 64), "time per image"),
    "two_processes": Target("2 processes on 2 cores, one thread each, B/16, batch 16", "1 process with 2 threads", ">=",
                            0.9, "scaling", "scaling", _B16.format("two processes", 16)),
}


def mark(record: dict) -> dict:
    """The record, with ``target``, ``goal`` and ``reached`` where it is the one of a target."""
    for name, target in TARGETS.items():
        if target.fits(record):
            return {**record, "target": name, "goal": target.goal(), "reached": target.reached(record)}
    return record


def measure(settings: Settings, name: Optional[str] = None):
    """Functions that measure a target, or all in order, as ``(run name, iterable of records)``."""
    wanted = list(RUNS) if name is None else [TARGETS[name].run]
    for run in wanted:
        yield run, RUNS[run](settings)
