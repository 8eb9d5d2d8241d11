"""From a configuration to a run, with every check that can be made before the first step."""
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import paddle

from passl_mixer import checkpoint, distributed, runtime
from passl_mixer.autocast import autocast_dtype
from passl_mixer.build import TEXT_SIZES, build_model, require_captions, resolve
from passl_mixer.config import Config
from passl_mixer.data import build_dataset, build_views, check_dataset
from passl_mixer.data.dali import DaliLoader
from passl_mixer.data.loader import Loader
from passl_mixer.errors import BadInput
from passl_mixer.layers.batch_norm import synchronise
from passl_mixer.layers.data_format import set_data_format
from passl_mixer.layers.recompute import set_recompute
from passl_mixer.methods.moco import has_batch_norm
from passl_mixer.training.cuda_graph import GraphedPass
from passl_mixer.training.optim import build_optimizer, scaled_lr
from passl_mixer.training.precision import Precision
from passl_mixer.training.prefetch import CopyStream, make_prefetcher, prefetch
from passl_mixer.training.static_graph import compile_backbone


@dataclass
class Run:
    """Everything a run is made of.

    Attributes:
        seed, accumulate_steps, rank: of the configuration and of this process, for the step.
    """

    config: Config          # resolved
    device: str
    method: paddle.nn.Layer
    optimizer: object
    precision: Precision
    loader: object          # Loader or DaliLoader
    views: object
    steps_per_epoch: int
    total_steps: int        # of the whole schedule
    last_step: int          # where this run stops: total_steps, or train.max_steps
    peak_lr: float
    skip_eval_reason: str   # why there is no evaluation; empty where there is
    previous: Optional[Path] = None             # the checkpoint to continue from
    prefetcher: Optional[CopyStream] = None     # on a GPU
    graphed: Optional[GraphedPass] = None       # with train.cuda_graphs
    gradients_checked: bool = False             # whether a backward pass has reached every trainable parameter

    def __post_init__(self):
        self.seed, self.accumulate_steps = self.config.seed, self.config.train.accumulate_steps
        self.rank = distributed.rank()

    def seed_step(self, step: int) -> None:
        """Seed Paddle's generators for a step: masks and permutations depend on (seed, step, rank) alone."""
        runtime.seed_step(self.seed, step, self.rank)

    def batches(self, epoch: int, start_batch: int):
        """The batches of an epoch from ``start_batch`` on, copied to the device one ahead where that is a GPU.

        Yields:
            ``(views, labels)`` as the loader makes them: uint8 [B, S, S, 3] per view; int64 [B], token ids or None.
        """
        yield from prefetch(self.loader.epoch(epoch, start_batch=start_batch), self.prefetcher)


def build_run(config: Config, resume: Optional[bool] = None) -> Run:
    """Build and check a run: folder, device, data, model, optimiser.

    Args:
        config: from ``get_config``.
        resume: whether a run that ``output_dir`` holds is continued; None leaves that folder alone.
    Raises:
        BadInput: anything that does not fit, named by its keys, before the first step.
    """
    views = build_views(config.data.train_views)
    config = resolve(config, views)
    previous = None if resume is None else checkpoint.open_run(config, resume)
    device = runtime.select_device(config.train.device)
    dataset = build_dataset(config.data.dataset, "train")
    local_batch = _local_batch(config)
    loader = Loader(dataset, views, batch_size=local_batch, seed=config.seed, num_workers=config.data.num_workers,
                    shuffle=True, drop_last=True, rank=distributed.rank(), world_size=distributed.world_size())
    if config.data.loader == "dali":
        loader = DaliLoader(loader, device_id=_gpu_number(device))
    method = build_model(config)
    distributed.broadcast_state(method)
    _check_sizes(config, method, views, dataset)
    method.check_batch(local_batch // config.train.accumulate_steps, config.data.batch_size)
    skip_eval_reason = _skip_eval_reason(config, dataset)
    if config.train.init_from:
        checkpoint.load_encoder(config.train.init_from, method.backbone)
    if _spans_processes(config, method):
        synchronise(method)
    set_recompute(method.backbone, config.train.recompute)
    if config.train.channels_last:
        set_data_format(method, "NHWC")
    if config.train.compile:
        compile_backbone(method.backbone, config.model.backbone.name, views.img_size)
    steps, optim = len(loader), config.optim
    total = steps * config.schedule.epochs
    return Run(config=config, device=device, method=method,
               optimizer=build_optimizer({k: v for k, v in optim.items() if k not in ("lr", "base_batch_size")},
                                         method.trainable_parameters()),
               precision=Precision(autocast_dtype(config.train.precision, device)),
               loader=loader, views=views, steps_per_epoch=steps, total_steps=total,
               last_step=min(total, config.train.max_steps or total),
               skip_eval_reason=skip_eval_reason, previous=previous, prefetcher=make_prefetcher(device),
               graphed=_graphed(config, device, method),
               peak_lr=scaled_lr(optim.lr, config.data.batch_size, optim.base_batch_size or config.data.batch_size))


def _graphed(config: Config, device: str, method) -> Optional[GraphedPass]:
    """The graphed pass of ``train.cuda_graphs``; None if it is off, or on a CPU."""
    settings = config.train
    if not settings.cuda_graphs:
        return None
    for key, bad, expected in (("train.precision", settings.precision == "fp16", "fp32 or bf16"),
                               ("train.accumulate_steps", settings.accumulate_steps > 1, "1"),
                               ("train.recompute", settings.recompute, "false")):
        if bad:
            raise BadInput(f"train.cuda_graphs records one pass that is the same every time, and {key} is "
                           f"{settings[key.partition('.')[2]]}; expected {expected}, or train.cuda_graphs=false")
    if distributed.world_size() > 1:
        raise BadInput(f"train.cuda_graphs is for one process, and there are {distributed.world_size()}; set "
                       "train.cuda_graphs=false")
    if not device.startswith("gpu"):
        return None
    state = [*method.parameters(), *method.buffers()]
    return GraphedPass([p for _, p in method.trainable_parameters()], state,
                       lambda step: runtime.seed_step(config.seed, step, distributed.rank()),
                       getattr(method, "pending", []))


def _gpu_number(device: str) -> Optional[int]:
    """Number of the current GPU; None on the CPU."""
    return int(paddle.device.get_device().partition(":")[2]) if device.startswith("gpu") else None


def _local_batch(config: Config) -> int:
    share, rest = divmod(config.data.batch_size, distributed.world_size() * config.train.accumulate_steps)
    if rest:
        raise BadInput(f"'data.batch_size' is {config.data.batch_size}; expected a multiple of "
                       f"{distributed.world_size()} process(es) x train.accumulate_steps "
                       f"{config.train.accumulate_steps}")
    return share * config.train.accumulate_steps


def _spans_processes(config: Config, method) -> bool:
    """Whether BatchNorm takes its statistics from the images of all processes.

    By default it does: ``data.batch_size`` is the batch of all processes, and SimCLR, BYOL, SimSiam and MoCo v3 were
    published so. MoCo v1 and v2 rest on groups that are normalised apart.
    """
    if distributed.world_size() == 1 or not config.train.sync_batch_norm or config.model.method.name == "moco":
        return False
    if config.train.compile and has_batch_norm(method.backbone):
        raise BadInput(f"'train.compile' makes a program of backbone {config.model.backbone.name!r}, whose BatchNorm "
                       "cannot span processes then; set train.sync_batch_norm=false or train.compile=false")
    return True


def _skip_eval_reason(config: Config, dataset) -> str:
    """Why there is no evaluation, or an empty text; ``BadInput`` if ``data.eval_dataset`` is given and missing."""
    if config.data.eval_dataset:
        check_dataset(config.data.eval_dataset, "test")
    if not config.evaluate.every_epochs and not config.evaluate.at_end:
        return "not asked for"
    if config.data.eval_dataset:
        dataset = build_dataset(config.data.eval_dataset, "train")      # its images vote
    if dataset.labels is None:
        return "the images have no labels"
    if dataset.labels.ndim != 1:
        return "the images have captions, no classes; name images with classes as data.eval_dataset"
    if not config.data.eval_dataset:
        try:
            check_dataset(config.data.dataset, "test")
        except BadInput as error:
            return str(error)
    return ""


def _check_captions(config: Config, method, dataset) -> None:
    require_captions(config, dataset)
    for key in TEXT_SIZES:
        ours, theirs = getattr(method.text, key), getattr(dataset, key)
        if ours != theirs:
            raise BadInput(f"'model.method.text.{key}' is {ours} but the captions of 'data.dataset' have {key} "
                           f"{theirs}; expected the same (leave the first out)")


def _check_sizes(config: Config, method, views, dataset) -> None:
    if views.num_views != method.num_views:
        raise BadInput(f"method {config.model.method.name!r} needs {method.num_views} view(s) of an image, but "
                       f"'data.train_views.name' {config.data.train_views.name!r} makes {views.num_views}; "
                       f"choose another, e.g. -o data.train_views.name="
                       f"{'simclr' if method.num_views == 2 else 'inception'}")
    evaluation = build_views(config.data.eval_views)
    size = getattr(method.backbone, "img_size", None)
    for key, made in (("train_views", views), ("eval_views", evaluation)):
        if size is not None and tuple(size) != (made.img_size, made.img_size):
            raise BadInput(f"'model.backbone.img_size' is {size[0]} but 'data.{key}.img_size' is {made.img_size}; "
                           "expected the same size")
    for key in ("mean", "std"):
        if getattr(views, key) != getattr(evaluation, key):
            raise BadInput(f"'data.train_views.{key}' is {list(getattr(views, key))} but 'data.eval_views.{key}' "
                           f"{list(getattr(evaluation, key))}; expected the same normalisation (leave the second out)")
    if config.model.method.name == "clip":
        _check_captions(config, method, dataset)
    needs_labels = config.model.method.name == "supervised"
    if needs_labels and dataset.labels is None:
        raise BadInput("method 'supervised' needs labels, but 'data.dataset.root' is a flat folder; "
                       "expected one folder per class")
    if needs_labels and dataset.labels.ndim != 1:
        raise BadInput(f"method 'supervised' needs classes, but dataset {config.data.dataset.name!r} has captions; "
                       "train on them with -o model.method.name=clip, or choose another data.dataset")
    if needs_labels and dataset.labels.max() >= method.head.out_features:
        classes = int(dataset.labels.max()) + 1
        raise BadInput(f"the dataset has {classes} classes but 'model.head.num_classes' is "
                       f"{method.head.out_features}; give -o model.head.num_classes={classes}")
