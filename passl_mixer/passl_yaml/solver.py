"""PASSL's ``lr_scheduler`` and ``optimizer`` as our ``optim`` and ``schedule``.

PASSL's files are for 8 cards and their rates belong to the batch of all of them, ``recipe_batch`` here; ours grow
linearly with ``data.batch_size`` from there (``optim.base_batch_size``).
"""
import math
from dataclasses import dataclass
from typing import Optional

from passl_mixer.errors import BadInput
from passl_mixer.passl_yaml.keys import Keys, number

CARDS = 8
IMAGENET_IMAGES = 1281167


@dataclass
class Recipe:
    """Facts from the rest of the file that the schedulers need."""

    epochs: int
    batch: int                      # of one card
    global_batch: Optional[int]     # as the file gives it
    images: int                     # in the data set
    by_global_batch: bool           # PASSL's use_byol_iters
    per_epoch: bool                 # the rate changes once an epoch


@dataclass
class Rates:
    """A learning rate, the batch it belongs to, and the keys of ``schedule`` beside ``epochs``."""

    lr: float
    recipe_batch: int
    schedule: dict


def _cards_batch(recipe: Recipe) -> int:
    return recipe.global_batch or CARDS * recipe.batch


def _whole_run(keys: Keys, recipe: Recipe) -> None:
    """Check that ``T_max``, in epochs, is the length of the run."""
    length = keys.take("T_max", float)
    if length != recipe.epochs:
        raise keys.refusal("T_max", length, f"the cosine spans the run here, {recipe.epochs} epochs; write that, or "
                                            "change 'epochs'")


def _cosine(keys: Keys, recipe: Recipe, notes: list) -> Rates:
    _whole_run(keys, recipe)
    lr = keys.take("learning_rate", float)
    return Rates(lr, _cards_batch(recipe), {"min_lr": keys.take("eta_min", float, 0.0)})


def _cosine_simclr(keys: Keys, recipe: Recipe, notes: list) -> Rates:
    if not recipe.per_epoch:
        raise BadInput(f"'{keys.path}.name: Cosinesimclr' counts T_max in steps without 'lr_config: "
                       "{name: LRSchedulerHook, unit: epoch}'; add that, or use CosineAnnealingDecay, which counts "
                       "epochs")
    _whole_run(keys, recipe)
    notes.append("lr_config.unit epoch: PASSL changes the rate once per epoch; here it changes with every step of the "
                 "same cosine")
    return Rates(keys.take("learning_rate", float), _cards_batch(recipe), {})


def _steps(keys: Keys, recipe: Recipe, notes: list) -> Rates:
    schedule = {"decay_epochs": [number(v) for v in keys.take("milestones", list)],
                "decay_factor": keys.take("gamma", float, 0.1)}
    return Rates(keys.take("learning_rate", float), _cards_batch(recipe), schedule)


def _peak(keys: Keys, lr: float) -> None:
    """``start_lr`` and ``end_lr`` of a warm-up to ``lr``."""
    end = keys.take("end_lr", float, lr)
    if end != lr:
        raise keys.refusal("end_lr", end, f"the warm-up ends at the learning rate here, {lr}; make them equal")


def _say_start(keys: Keys, notes: list) -> None:
    notes.append(f"{keys.path}.start_lr: PASSL's warm-up starts at {keys.take('start_lr', float, 0.0):g}; ours "
                 "rises from 0")


def _cosine_warmup(keys: Keys, recipe: Recipe, notes: list) -> Rates:
    """Counts in steps of the published run; its batch follows from the number of steps."""
    lr, total, warmup = keys.take("learning_rate", float), keys.take("T_max", int), keys.take("warmup_steps", int)
    if not 0 <= warmup < total:
        raise keys.refusal("warmup_steps", warmup, f"expected 0 or more and fewer than T_max, {total}")
    _peak(keys, lr)
    _say_start(keys, notes)
    implied = recipe.images * recipe.epochs / total
    rounded = recipe.batch * max(1, round(implied / recipe.batch))
    fits = abs(implied / rounded - 1) < 0.01
    batch = recipe.global_batch or (rounded if fits else CARDS * recipe.batch)
    schedule = {"warmup_epochs": round(recipe.epochs * warmup / total, 3), "min_lr": keys.take("eta_min", float, 0.0)}
    notes.append(f"{keys.path}: PASSL counts {total} steps and {warmup} of warm-up"
                 + (f", {recipe.epochs} epochs of {recipe.images} images in batches of {rounded}" if fits else "")
                 + f"; here both follow the length of the run: {recipe.epochs} epochs, "
                   f"{schedule['warmup_epochs']:g} of them warm-up, and the cosine ends with the run")
    return Rates(lr, batch, schedule)


def _simclr_warmup(keys: Keys, recipe: Recipe, notes: list) -> Rates:
    """PASSL computes the rate from ``end_lr`` and the batch of 8 cards."""
    batch, end = CARDS * recipe.batch, keys.take("end_lr", float)
    scaling = keys.choice(["sqrt", "linear"], "learning_rate_scaling")
    lr = end * math.sqrt(batch) if scaling == "sqrt" else end * batch / 256
    warmup = keys.take("warmup_epochs", float)
    for key in ("total_images", "T_max", "start_lr"):       # PASSL's code replaces all three
        keys.take(key, float, 0.0)
    if scaling == "sqrt":
        notes.append(f"{keys.path}.learning_rate_scaling: sqrt gives end_lr {end:g} x sqrt({batch}) = {lr:g} for "
                     f"the batch of 8 cards, {batch}, which PASSL hard-codes (not global_batch_size); here the rate is "
                     "linear in the batch from there")
    return Rates(lr, batch, {"warmup_epochs": warmup})


def _byol_linear(keys: Keys, recipe: Recipe, notes: list) -> Rates:
    epochs = keys.take("total_steps", int)
    if epochs != recipe.epochs:
        raise keys.refusal("total_steps", epochs, f"the cosine spans the run here, {recipe.epochs} epochs; write that")
    keys.only("warmup_steps", (0,), "no warm-up here; use CosineWarmup for one")
    keys.take("total_image", int)
    notes.append(f"{keys.path}.name ByolLRScheduler: no version of PASSL has it; its keys are read as half a cosine "
                 f"from end_lr at a batch of total_batch, without start_lr {keys.take('start_lr', float, 0.0):g}")
    return Rates(keys.take("end_lr", float), keys.take("total_batch", int), {})


def _linear_warmup(keys: Keys, recipe: Recipe, notes: list) -> Rates:
    """Warm-up in epochs in front of another scheduler, a cosine."""
    inner = keys.section("learning_rate")
    inner.choice(["CosineAnnealingDecay"])
    warmup, length = keys.take("warmup_steps", float), inner.take("T_max", float)
    lr = inner.take("learning_rate", float)
    _peak(keys, lr)
    _say_start(keys, notes)
    if length not in (recipe.epochs, recipe.epochs - warmup):
        raise inner.refusal("T_max", length, f"the cosine spans the epochs after the warm-up here; write "
                                             f"{recipe.epochs - warmup:g}")
    if length == recipe.epochs and warmup:
        notes.append(f"{inner.path}.T_max: PASSL's cosine begins after the warm-up and would end at epoch "
                     f"{length + warmup:g}, after the run; ours ends with the run, at epoch {recipe.epochs}")
    return Rates(lr, _cards_batch(recipe), {"warmup_epochs": warmup, "min_lr": inner.take("eta_min", float, 0.0)})


SCHEDULERS = {
    "CosineAnnealingDecay": _cosine, "Cosinesimclr": _cosine_simclr, "MultiStepDecay": _steps,
    "CosineWarmup": _cosine_warmup, "simclrCosineWarmup": _simclr_warmup, "ByolLRScheduler": _byol_linear,
    "LinearWarmup": _linear_warmup,
}


def rates(keys: Keys, recipe: Recipe, notes: list) -> Rates:
    """Read the learning rate of an ``lr_scheduler`` section.

    Args:
        keys: the section.
        recipe: facts from the rest of the file.
        notes: notes are appended.
    Raises:
        BadInput: an unsupported schedule.
    """
    name = keys.choice(list(SCHEDULERS))
    if recipe.by_global_batch and name not in ("CosineWarmup", "ByolLRScheduler"):
        raise BadInput(f"'{keys.path}.name: {name}' with use_byol_iters: PASSL would count epochs in whole runs; use "
                       "CosineWarmup, or remove use_byol_iters")
    if recipe.per_epoch and name != "Cosinesimclr":
        raise BadInput(f"'lr_config.unit: epoch' with {name}: the rate changes with every step here; remove lr_config")
    return SCHEDULERS[name](keys, recipe, notes)


def optimizer(keys: Keys, notes: list) -> dict:
    """The entry of an ``optimizer`` section, without the learning rate."""
    name = keys.choice(["Momentum", "AdamW", "LarsMomentumOptimizer", "LarsMomentum"])
    entry: dict
    if name == "Momentum":
        entry = {"name": "sgd", "momentum": keys.take("momentum", float, 0.9),
                 "weight_decay": keys.take("weight_decay", float, 0.0)}
        entry.update({"nesterov": True} if keys.take("use_nesterov", bool, False) else {})
    elif name == "AdamW":
        entry = {"name": "adamw", "beta1": keys.take("beta1", float, 0.9), "beta2": keys.take("beta2", float, 0.999),
                 "eps": keys.take("epsilon", float, 1e-8), "weight_decay": keys.take("weight_decay", float, 0.01)}
    else:
        entry = _lars(keys, notes)
    if entry["weight_decay"]:
        notes.append(f"{keys.path}: biases, norms and vectors are never decayed here"
                     + (", nor adapted by LARS" if entry["name"] == "lars" else "") + "; PASSL "
                     + ("excludes what exclude_from_weight_decay matches among Paddle's generated names"
                        if keys.take("exclude_from_weight_decay", list, []) else "decays them too"))
    if "grad_clip" in keys:
        clip = keys.section("grad_clip")
        clip.choice(["global_norm"])
        entry["clip_norm"] = clip.take("value", float)
    return entry


def _lars(keys: Keys, notes: list) -> dict:
    epsilon = keys.take("epsilon", float, 0.0)
    if epsilon > 1e-6:
        raise keys.refusal("epsilon", epsilon, "norms of 0 are not adapted by LARS here; write 1e-6 or less")
    notes.append(f"{keys.path}: PASSL's LARS divides by |gradient| + decay |weight|, ours by |gradient + decay "
                 "weight|, as SimCLR's and BYOL's code do"
                 + (f"; epsilon {epsilon:g} is not needed" if epsilon else ""))
    return {"name": "lars", "momentum": keys.take("momentum", float), "trust_coefficient":
            keys.take("lars_coeff", float, 0.001), "weight_decay": keys.take("lars_weight_decay", float, 0.0005)}
