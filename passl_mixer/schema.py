"""Every configuration key: type, default, allowed values, meaning; and the rules that concern several keys.

``tools/config_page.py`` writes docs/config.md from these tables. A section with a ``name`` (a backbone, a dataset, ...)
is checked by the registry that builds it.
"""
from typing import Mapping, NamedTuple, Optional, Sequence, Union

from passl_mixer.errors import BadInput, nearest

REQUIRED = object()         # in place of a default
ABOVE_0, FROM_0 = "above 0", "0 or more"
ITEMS = ["classifier", "knn", "linear", "labels_1", "labels_10"]
LOADERS = ["threads", "dali"]
DECAYS = ["cosine", "linear"]
PRECISIONS = ["auto", "fp32", "bf16", "fp16"]


class Key(NamedTuple):
    """One key of the configuration."""

    kind: object                        # its type
    default: object                     # or REQUIRED
    allowed: Union[str, Sequence]       # ABOVE_0, FROM_0, the allowed words, or a note for the reader
    meaning: str


class Entry(NamedTuple):
    """A section that a registry checks: ``{name: ..., options}``, or the name alone."""

    kind: str               # of which registry
    optional: bool          # null is allowed, and is the default
    meaning: str


_DATA = {
    "dataset": Entry("dataset", False, "images to train on"),
    "eval_dataset": Entry("dataset", True, "labelled images to evaluate on; null: those of `dataset`"),
    "train_views": Entry("views", False, "augmentation for training; size and normalisation of the run"),
    "eval_views": Entry("views", False, "preparation for evaluation; size and normalisation follow `train_views`"),
    "batch_size": Key(int, REQUIRED, ABOVE_0, "images per optimiser step, over all processes and micro-batches"),
    "num_workers": Key(int, 2, FROM_0, "loader threads per process"),
    "loader": Key(str, "threads", LOADERS, "who decodes and augments for training: threads on the CPU, or NVIDIA DALI"),
}
_SCHEDULE = {
    "epochs": Key(int, REQUIRED, ABOVE_0, "passes over the training images"),
    "warmup_epochs": Key(float, 0.0, FROM_0, "length of the linear warm-up from 0"),
    "warmup_steps": Key(Optional[int], None, FROM_0, "the same in optimiser steps, in place of `warmup_epochs`"),
    "decay": Key(str, "cosine", DECAYS, "curve from the peak to `min_lr`"),
    "min_lr": Key(float, 0.0, FROM_0, "learning rate at the end; like `optim.lr`, but not scaled with the batch"),
    "decay_epochs": Key(Optional[Sequence[float]], None, "above 0, rising",
                        "staircase in place of the curve: at each of these epochs the rate is multiplied by "
                        "`decay_factor`"),
    "decay_factor": Key(Optional[float], None, ABOVE_0, "factor of the staircase; null: 0.1"),
}
_TRAIN = {
    "device": Key(str, "auto", "auto, cpu, gpu, gpu:N, or a plug-in's device",
                  "where to compute; auto: a GPU if there is one, else a plug-in's device, else the CPU"),
    "precision": Key(str, "fp32", PRECISIONS, "type of products and convolutions, in training and evaluation; auto: "
                     "bf16 where the device is quick at it; parameters, norms, losses and optimiser stay float32"),
    "accumulate_steps": Key(int, 1, ABOVE_0, "micro-batches per optimiser step; must divide `data.batch_size`"),
    "max_steps": Key(Optional[int], None, ABOVE_0, "end the run after this many optimiser steps; null: no limit"),
    "log_every_steps": Key(int, 50, ABOVE_0, "optimiser steps from one logged line to the next"),
    "checkpoint_every_epochs": Key(int, 1, FROM_0, "epochs from one checkpoint to the next; 0: none by epochs"),
    "checkpoint_every_steps": Key(Optional[int], None, ABOVE_0, "optimiser steps from one checkpoint to the next, "
                                  "beside those of epochs; null: none by steps"),
    "keep_checkpoints": Key(int, 2, ABOVE_0, "step checkpoints that are kept, newest first"),
    "visualdl": Key(bool, False, "", "also log to `RUN/visualdl`"),
    "collapse_threshold": Key(float, 0.05, FROM_0, "warn when `feature_std` is below this"),
    "sync_batch_norm": Key(bool, True, "", "BatchNorm statistics over all processes; never for method `moco`"),
    "recompute": Key(bool, False, "", "compute the activations of blocks again in the backward pass, to save memory"),
    "channels_last": Key(bool, False, "", "convolutions on maps [B, H, W, C], for GPUs"),
    "compile": Key(bool, False, "", "train the backbone as one static program"),
    "cuda_graphs": Key(bool, False, "", "launch forward and backward pass as one CUDA graph; no effect on a CPU"),
    "init_from": Key(Optional[str], None, "", "run folder or checkpoint whose backbone the run starts from"),
}
_EVALUATE = {
    "every_epochs": Key(int, 0, FROM_0, "epochs from one kNN evaluation to the next; 0: never"),
    "at_end": Key(Sequence[str], [], ITEMS, "what to evaluate when the run ends"),
    "batch_size": Key(int, 256, ABOVE_0, "images per forward pass"),
    "labelled_images": Key(Optional[int], None, ABOVE_0, "training images whose labels the evaluation uses, spaced "
                           "evenly over the classes; null: all"),
    "knn": {"k": Key(int, 20, ABOVE_0, "neighbours that vote"),
            "temperature": Key(float, 0.1, ABOVE_0, "votes weigh exp(cosine / temperature)"),
            "bank_images": Key(Optional[int], None, ABOVE_0, "training images that vote; null: all")},
    "linear": {"epochs": Key(int, 100, ABOVE_0, "passes over the training features"),
               "lr": Key(float, 1.0, ABOVE_0, "peak learning rate for 256 features; grows with `batch_size`"),
               "batch_size": Key(int, 512, ABOVE_0, "features per step"),
               "weight_decay": Key(float, 0.0, FROM_0, "L2 regularisation")},
    "few_labels": {"draws": Key(int, 20, ABOVE_0, "random choices of the labelled images, averaged"),
                   "l2": Key(float, 0.01, ABOVE_0, "L2 regularisation of the classifier")},
}
SCHEMA = {
    "seed": Key(int, 0, FROM_0, "of initialisation, order of the images and augmentation"),
    "output_dir": Key(str, REQUIRED, "", "the run folder"),
    "model": {"backbone": Entry("backbone", False, "the encoder"),
              "head": Entry("head", False, "projector or classifier on the features"),
              "method": Entry("method", False, "how to train: the loss and what belongs to it")},
    "data": _DATA,
    "optim": Entry("optimiser", False, "the optimiser and the two keys below"),
    "schedule": _SCHEDULE,
    "train": _TRAIN,
    "evaluate": _EVALUATE,
}
# The keys of ``optim`` beside the optimiser's own options.
OPTIM = {
    "lr": Key(float, REQUIRED, ABOVE_0, "peak learning rate for `base_batch_size` images"),
    "base_batch_size": Key(Optional[int], None, ABOVE_0, "the rate is multiplied by `data.batch_size` / "
                           "`base_batch_size`; null: `lr` as it stands"),
}
# Old name -> new name. The old one is read everywhere, and announced where a user wrote it.
RENAMED = {"train.accumulate": "train.accumulate_steps", "schedule.final_lr": "schedule.min_lr"}


def check_rules(config) -> None:
    """Check the rules that concern several keys.

    Args:
        config: a configuration with every key, each with a valid value.
    Raises:
        BadInput: two keys contradict each other; the message names both.
    """
    if config.data.batch_size % config.train.accumulate_steps:
        raise BadInput(f"'data.batch_size' is {config.data.batch_size} and 'train.accumulate_steps' is "
                       f"{config.train.accumulate_steps}; expected a batch that divides evenly into the micro-batches")
    if config.train.recompute and config.train.compile:
        raise BadInput("'train.recompute' and 'train.compile' are both true, but a compiled backbone keeps its "
                       "activations; set one of them to false")
    _check_schedule(config.schedule)
    check_items(config.evaluate.at_end, config)


def _check_schedule(schedule) -> None:
    if schedule.warmup_steps is not None and schedule.warmup_epochs:
        raise BadInput(f"'schedule.warmup_steps' is {schedule.warmup_steps} and 'schedule.warmup_epochs' is "
                       f"{schedule.warmup_epochs}, two lengths of one warm-up; set schedule.warmup_epochs=0 or "
                       "schedule.warmup_steps=null")
    steps = schedule.decay_epochs
    if steps is not None and (not steps or list(steps) != sorted(set(steps)) or steps[0] <= 0 or schedule.min_lr):
        raise BadInput(f"'schedule.decay_epochs' is {steps} and 'schedule.min_lr' is {schedule.min_lr}; expected "
                       "positive epochs in rising order, and a min_lr of 0, which a staircase does not use")
    if steps is not None and schedule.decay != "cosine":
        raise BadInput(f"'schedule.decay_epochs' is {steps} and 'schedule.decay' is {schedule.decay!r}, a staircase "
                       "and a line; set schedule.decay_epochs=null or leave schedule.decay out")
    if steps is None and schedule.decay_factor is not None:
        raise BadInput("'schedule.decay_factor' is given without 'schedule.decay_epochs'; add the epochs, or remove it")


def check_items(items: Sequence[str], config: Mapping) -> None:
    """Check the items of an evaluation.

    Args:
        items: some of ``ITEMS``.
        config: the whole configuration.
    Raises:
        BadInput: an unknown item, or ``classifier`` with a method that trains none.
    """
    for item in items:
        if item not in ITEMS:
            raise BadInput(f"'evaluate.at_end' holds {item!r}{nearest(item, ITEMS)}")
    method = config["model"]["method"]["name"]
    if "classifier" in items and method != "supervised":
        raise BadInput(f"method {method!r} trains no classifier to evaluate; expected 'supervised', or of "
                       f"{', '.join(item for item in ITEMS if item != 'classifier')}")
