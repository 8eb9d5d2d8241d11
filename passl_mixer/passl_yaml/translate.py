"""YAML files of PASSL v1.1 in our keys, with a note wherever their meaning in PASSL is another.

PASSL (https://github.com/PaddlePaddle/PASSL) v1.1 reads them with ``tools/train.py -c``; the meanings are those of its
code at tag v1.1.0. Every key of a file is translated, or ignored because it changes nothing, or refused by name. The
tables of models, transforms and schedulers are in ``models.py``, ``views.py`` and ``solver.py``.
"""
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import yaml

from passl_mixer.errors import BadInput
from passl_mixer.passl_yaml import models as passl_yaml_models
from passl_mixer.passl_yaml import solver as passl_yaml_solver
from passl_mixer.passl_yaml import views as passl_yaml_views
from passl_mixer.passl_yaml.keys import Keys
from passl_mixer.passl_yaml.models import Model

NATIVE = ("data", "optim", "schedule")


def recognises(content: Mapping) -> bool:
    """Whether the content of a YAML file is one of PASSL v1.1's: a named model, a dataloader, no section of ours."""
    model = content.get("model")
    return ("dataloader" in content and isinstance(model, Mapping) and ("name" in model or "architecture" in model)
            and not any(key in content for key in NATIVE))


def translate_file(content: Mapping, path: Path) -> tuple:
    """``translate`` with the file's name in errors and, as in PASSL, in ``output_dir``.

    Raises:
        BadInput: as ``translate``.
    """
    try:
        native, notes = translate(content)
    except BadInput as error:
        raise BadInput(f"{path}, a file of PASSL v1.1: {error}") from None
    native["output_dir"] = f"{native['output_dir']}/{path.stem}"
    return native, notes


def translate(content: Mapping) -> tuple:
    """Translate a PASSL v1.1 configuration.

    Args:
        content: the mapping that the file holds; it is not changed.
    Returns:
        ``(native, notes)``: a mapping for our schema, and the deviations, one text each. The batch is that of one of
        PASSL's cards; ``optim.base_batch_size`` that of all of them.
    Raises:
        BadInput: a key or value that cannot be honoured, by its path, with what to do instead.
    """
    keys, notes = Keys(content), []
    section = keys.section("model")
    model = passl_yaml_models.MODELS[section.choice(list(passl_yaml_models.MODELS))](section, notes)
    data, loaded = _data(keys.section("dataloader"), model, notes)
    epochs = keys.take("epochs", int)
    recipe = passl_yaml_solver.Recipe(
        epochs=epochs, batch=data["batch_size"], global_batch=keys.take("global_batch_size", Optional[int], None),
        images=keys.take("total_images", int, passl_yaml_solver.IMAGENET_IMAGES),
        by_global_batch=keys.take("use_byol_iters", bool, False), per_epoch=_unit(keys) == "epoch")
    keys.take("use_simclr_iters", bool, False)
    rates = passl_yaml_solver.rates(keys.section("lr_scheduler"), recipe, notes)
    optim = passl_yaml_solver.optimizer(keys.section("optimizer"), notes)
    optim.update(lr=rates.lr, base_batch_size=rates.recipe_batch, **_predictor_rate(keys))
    notes.append(_batch_note(data["batch_size"], rates))
    native = {
        "seed": _seed(keys, notes), "output_dir": keys.take("output_dir", str),
        "model": {"backbone": model.backbone, "head": model.head, "method": model.method}, "data": data,
        "optim": optim, "schedule": {"epochs": epochs, **rates.schedule}, "train": _train(keys, notes),
        "evaluate": _evaluate(keys, model, loaded, notes)}
    keys.finish()
    notes.append("initial weights are passl_mixer's; the networks are PASSL's")
    return native, list(dict.fromkeys(notes))


def _batch_note(batch: int, rates) -> str:
    return (f"data.batch_size {batch}: the batch of one card in PASSL, of all processes and accumulation steps here. "
            f"The learning rate {rates.lr:g} is meant for {rates.recipe_batch} images per step, those of all cards "
            "together. PASSL keeps it for any number of cards; here it is linear in the batch: "
            f"{rates.lr * batch / rates.recipe_batch:g}. For the run of all cards: "
            f"-o data.batch_size={rates.recipe_batch}")


def _data(keys: Keys, model: Model, notes: list) -> tuple:
    """``(data section, batch size of PASSL's evaluation or None)``."""
    train = keys.section("train")
    batch, workers = _loader(train, True, notes)
    dataset = train.section("dataset")
    entry, views = _dataset(dataset, model, notes)
    data = {"dataset": entry, "train_views": views, "batch_size": batch, "num_workers": workers}
    size = views["img_size"]
    data["eval_views"] = {"name": "center_crop", "img_size": size, "resize": round(size * 256 / 224),
                          "mean": views["mean"], "std": views["std"]}
    if "val" not in keys:
        return data, None
    val = keys.section("val")
    val_batch, _ = _loader(val, False, notes)
    val_set = val.section("dataset")
    val_set.choice(["ImageNet"])
    val_set.only("return_label", (True,), "evaluation needs classes")
    root = val_set.take("dataroot", str).rstrip("/")
    if Path(root).parent != Path(entry["root"]) or Path(root).name not in ("val", "test"):
        notes.append(f"{val_set.name_of('dataroot')} {root}: the test images are those of val/ or test/ in "
                     f"data.dataset.root, {entry['root']}")
    data["eval_views"] = passl_yaml_views.eval_view(_one_view(val_set, notes, model), val_set.path)
    return data, val_batch


def _loader(keys: Keys, training: bool, notes: list) -> tuple:
    """``(batch size, workers)`` of a loader and its sampler."""
    workers = keys.take("num_workers", int, 2)
    if "loader" in keys:
        loader = keys.section("loader")
        workers = loader.take("num_workers", int, workers)
        loader.take("use_shared_memory", bool, True)        # threads here: nothing is copied between processes
    sampler = keys.section("sampler")
    sampler.only("name", ("DistributedBatchSampler",), "batches are drawn without repetition here; remove the key")
    sampler.only("shuffle", (training,), "training images are shuffled here and evaluation's are not")
    if not sampler.take("drop_last", bool, False) and training:
        notes.append(f"{sampler.path}.drop_last: false; an incomplete last batch of an epoch is left out here")
    return sampler.take("batch_size", int), workers


def _one_view(dataset: Keys, notes: list, model: Model) -> list:
    """The operations of ``transforms``, and the normalisation inside the model if there is one."""
    operations = passl_yaml_views.operations(dataset.items("transforms"), notes)
    return operations + ([passl_yaml_views.IMAGENET] if model.inside else [])


def _dataset(keys: Keys, model: Model, notes: list) -> tuple:
    """``(dataset entry, training views entry)``."""
    if model.captions:
        keys.choice(["TextImageDataset"])
        keys.take("shuffle", bool, False)       # PASSL: what replaces an image that cannot be read
        entry = {"name": "image_text_folder", "root": keys.take("dataroot", str),
                 "context_length": model.method["text"]["context_length"]}
        notes.append("data.dataset TextImageDataset: a caption is the whole .txt with the image's name; PASSL draws "
                     "one of its lines each time. Name the byte-pair merges, which PASSL carries with its code: "
                     "-o data.dataset.merges=bpe_simple_vocab_16e6.txt.gz")
    else:
        keys.choice(["ImageNet"])
        root = Path(keys.take("dataroot", str))
        entry = {"name": "image_folder", "root": str(root.parent if root.name == "train" else root)}
        if not keys.take("return_label", bool) and model.num_views == 1:
            raise keys.refusal("return_label", False, "a classifier needs the labels: true")
    if model.num_views == 1:
        keys.only("return_two_sample", (False,), "one view an image trains this method: false")
        return entry, passl_yaml_views.single_view(_one_view(keys, notes, model), keys.name_of("transforms"))
    if not keys.take("return_two_sample", bool, False):
        raise keys.refusal("return_two_sample", False, f"method {model.method['name']} needs two views of an image: "
                                                       "true")
    common, pair = passl_yaml_views.operations(keys.items("transforms"), notes), []
    for i, key in enumerate(("view_trans1", "view_trans2")):
        own = common + passl_yaml_views.operations(keys.items(key), notes)
        if model.inside:
            own += [("blur", (1.0, 0.1)[i]), ("solarize", (0.0, 0.2)[i]), passl_yaml_views.IMAGENET]
        pair.append(own)
    return entry, passl_yaml_views.two_views(*pair, keys.path, notes)


def _unit(keys: Keys) -> str:
    """How often PASSL changes the learning rate: "iter" or "epoch"."""
    if "lr_config" not in keys:
        return "iter"
    section = keys.section("lr_config")
    section.choice(["LRSchedulerHook"])
    return section.choice(["iter", "epoch"], "unit") if "unit" in section else "iter"


def _predictor_rate(keys: Keys) -> dict:
    """SimSiam's hook keeps the predictor's learning rate constant."""
    if "optimizer_config" not in keys:
        return {}
    name = keys.section("optimizer_config").choice(["OptimizerHook", "SimsiamOptimizerHook"])
    return {"fixed_lr": ["predictor.*"]} if name == "SimsiamOptimizerHook" else {}


def _seed(keys: Keys, notes: list) -> int:
    seed = keys.take("seed", int, 0)
    if seed == 0:
        notes.append("seed: PASSL v1.1 does not seed without this key, or with 0; here 0 is a seed, and runs repeat")
    return seed


def _train(keys: Keys, notes: list) -> dict:
    train = {"device": "auto", "checkpoint_every_epochs": 1, "keep_checkpoints": 5}
    if "device" in keys and keys.choice(["gpu", "cpu"], "device") == "cpu":
        train["device"] = "cpu"
    else:
        notes.append("device: auto, a GPU if there is one; -o train.device=gpu requires one")
    for key in ("use_amp", "sharding"):
        keys.only(key, (False,), "remove it and its options (AMP); -o train.precision=bf16 or fp16 computes in half "
                                 "precision")
    if "log_config" in keys:
        section = keys.section("log_config")
        section.choice(["LogHook"])
        train["log_every_steps"] = section.take("interval", int, 10)
    if "checkpoint" in keys:
        section = keys.section("checkpoint")
        section.choice(["CheckpointHook"])
        section.only("by_epoch", (True,), "-o train.checkpoint_every_steps=N saves by steps")
        train["checkpoint_every_epochs"] = section.take("interval", int, 1)
        train["keep_checkpoints"] = section.take("max_keep_ckpts", int, 5)
    exported = (("image_shape", list), ("save_inference_dir", str), ("infer_add_softmax", bool))
    for key, kind in (*exported, ("timestamp", bool)):      # PASSL's --export, and its folder names
        keys.take(key, kind, None)
    return train


def _evaluate(keys: Keys, model: Model, batch, notes: list) -> dict:
    evaluate = {"batch_size": batch} if batch else {}
    for hook in keys.items("custom_config"):
        hook.choice(["EvaluateHook"])
        item = "classifier" if model.method["name"] == "supervised" else "knn"
        evaluate["at_end"] = [item]
        notes.append(f"{hook.path} EvaluateHook: PASSL evaluates after every epoch; here {item} is evaluated on the "
                     "test images when the run ends; 'accuracy' in the log is on training images")
    return evaluate


def report(path, config: Mapping, notes: list) -> str:
    """A text on the translation of a file and its deviations.

    Args:
        path: the file.
        config: the translated configuration.
        notes: deviations.
    """
    def flow(value) -> str:
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10 ** 6)
        return text.replace("\n...", "").strip()

    lines = [f"{path} is a file of PASSL v1.1. In native keys (--dump OUT.yaml writes all of them):"]
    for name in ("model", "data"):
        lines += [f"  {name}.{key}: {flow(value)}" for key, value in config[name].items() if value is not None]
    lines += [f"  {name}: {flow(config[name])}" for name in ("optim", "schedule")]
    return "\n".join([*lines, "deviations:", *(f"  - {note}" for note in notes)])
