"""A SimCLR configuration of ours as the set-up of ``tools/peers/torch_race.py``: the same recipe, value by value.

What the script on PyTorch does not have is refused here, by its key, so that the two sides never train two recipes.
"""
from pathlib import Path

from bench.against import TIMM
from passl_mixer.config import Config
from passl_mixer.errors import BadInput
from passl_mixer.registry import BACKBONES, HEADS, VIEWS

ADAMW = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
MIXER = ("img_size", "patch_size", "num_blocks", "embed_dim", "mlp_ratio")      # named as timm names them


def setup_of(config: Config, parameters: int) -> dict:
    """The set-up, less what differs between runs (item, way, workers, threads, seed, trial_steps).

    Args:
        config: resolved.
        parameters: of our backbone and head.
    Raises:
        BadInput: a part of the recipe that the script on PyTorch does not have.
    """
    data, schedule, optim, settings = config.data, config.schedule, config.optim, config.evaluate
    _expect("model.method.name", config.model.method.name, "simclr")
    _expect("optim.name", optim.name, "adamw")
    _expect("schedule.decay", schedule.decay, "cosine")
    _expect("schedule.decay_epochs", schedule.decay_epochs, None)
    _expect("schedule.warmup_steps", schedule.warmup_steps, None)
    _expect("train.accumulate_steps", config.train.accumulate_steps, 1)
    _expect("data.eval_dataset", data.eval_dataset, None)
    _only("optim", optim, ("name", "lr", "base_batch_size", *ADAMW))
    numbers = {**ADAMW, **{key: optim[key] for key in ADAMW if key in optim}}
    return {"data": _data(data.dataset), "network": _network(config.model.backbone), "head": _head(config.model.head),
            "parameters": parameters, "temperature": config.model.method.get("temperature", 0.1),
            "views": _views(data), "batch": data.batch_size, "epochs": schedule.epochs,
            "warmup_epochs": schedule.warmup_epochs, "min_lr": schedule.min_lr, "lr": _peak(config),
            "betas": [numbers["beta1"], numbers["beta2"]], "eps": numbers["eps"],
            "weight_decay": numbers["weight_decay"], "every_epochs": settings.every_epochs,
            "eval_batch": settings.batch_size, "knn": dict(settings.knn), "few_labels": dict(settings.few_labels)}


def _expect(key: str, value, expected) -> None:
    if value != expected:
        raise BadInput(f"race: {key} is {value!r}, and the run on PyTorch has {expected!r} only; give a configuration "
                       "with it")


def _only(key: str, section, known) -> None:
    for name in section:
        if name not in known:
            raise BadInput(f"race: the run on PyTorch has no option {key}.{name}; leave it out, or give a "
                           f"configuration with {', '.join(known)} only")


def _peak(config: Config) -> float:
    batch = config.data.batch_size
    return config.optim.lr * batch / (config.optim.base_batch_size or batch)


def _data(dataset: Config) -> dict:
    from passl_mixer.data.datasets import ASSETS

    if dataset.name == "fashion_mnist_mini":
        return {"archive": str(ASSETS / "fashion_mnist_mini.npz")}
    _expect("data.dataset.name", dataset.name, "cifar10")
    found = sorted(Path(dataset.root).rglob("test_batch.bin"))
    if not found:
        raise BadInput(f"race: there is no test_batch.bin under {dataset.root}; expected CIFAR-10's binary files: give "
                       "their folder by --data")
    return {"folder": str(found[0].parent.absolute())}


def _network(backbone: Config) -> dict:
    """timm's network for a backbone."""
    name, given = backbone.name, {key: value for key, value in backbone.items() if key != "name"}
    cls, preset = BACKBONES.entry(name)
    if cls.__name__ == "MlpMixer":
        options = {**preset, **given}
        if options.pop("act", "gelu") != "gelu" or options.pop("drop_path_rate", 0.0):
            raise BadInput("race: timm's Mixer is compared with act: gelu and drop_path_rate: 0; leave both out")
        _only("model.backbone", options, MIXER)
        return {"mixer": {**options, "num_classes": 0}}
    if name not in TIMM or set(given) - {"img_size"}:
        raise BadInput(f"race: backbone {name!r} with {sorted(given)} has no network in timm that is known here; "
                       f"expected a Mixer of any size, or one of {', '.join(TIMM)} without options")
    return {"timm": TIMM[name], "options": {**given, "num_classes": 0}}


def _head(head: Config) -> dict:
    _expect("model.head.name", head.name, "mlp")
    defaults = {key: p.default for key, p in HEADS.parameters("mlp").items() if key != "in_features"}
    options = {**defaults, **{key: value for key, value in head.items() if key != "name"}}
    for key, expected in (("last_affine", True), ("hidden_bias", None), ("last_bias", None)):
        _expect(f"model.head.{key}", options.pop(key), expected)
    if options["norm"] == "ln":
        raise BadInput("race: model.head.norm is 'ln', and the run on PyTorch has 'bn' or null only")
    return options


def _views(data: Config) -> dict:
    _expect("data.train_views.name", data.train_views.name, "simclr")
    _expect("data.eval_views.name", data.eval_views.name, "center_crop")
    defaults = {key: p.default for key, p in VIEWS.parameters("simclr").items()}
    options = {**defaults, **{key: value for key, value in data.train_views.items() if key != "name"}}
    side = 28 if data.dataset.name == "fashion_mnist_mini" else 32
    _expect("data.train_views.img_size", options["img_size"], side)     # of the pictures: evaluated as they are
    options["jitter"] = [options["jitter_strength"] * value for value in options["jitter"]]
    for key in ("mean", "std"):
        value = options[key]
        options[key] = [float(value)] * 3 if isinstance(value, (int, float)) else list(value)
    return {key: options[key] for key in ("img_size", "crop_min", "flip_p", "jitter", "jitter_p", "gray_p", "blur_p",
                                          "mean", "std")}
