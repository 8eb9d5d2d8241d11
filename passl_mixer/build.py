"""From a configuration to everything a run is made of, with every check that can be made before the first step."""
from dataclasses import dataclass

import paddle

from passl_mixer import checkpoint, distributed, runtime
from passl_mixer.config import Config
from passl_mixer.data import build_dataset, build_views
from passl_mixer.data.loader import Loader
from passl_mixer.errors import BadInput
from passl_mixer.methods import build_method
from passl_mixer.optim import build_optimizer, scaled_lr
from passl_mixer.precision import Precision
from passl_mixer.registry import BACKBONES


@dataclass
class Run:
    """Everything a run is made of."""

    config: Config
    device: str
    method: paddle.nn.Layer
    optimizer: object
    precision: Precision
    loader: Loader
    views: object
    steps_per_epoch: int
    total_steps: int        # of the whole schedule
    last_step: int          # where this run stops: total_steps, or train.max_steps
    peak_lr: float


def build(config: Config) -> Run:
    """Build and check a run: device, data, model, optimiser.

    Raises:
        BadInput: anything that does not fit, named by its keys, before the first step.
    """
    device = runtime.select_device(config.train.device)
    views = build_views(config.data.train_views)
    dataset = build_dataset(config.data.dataset, "train")
    local_batch = _local_batch(config)
    loader = Loader(dataset, views, batch_size=local_batch, seed=config.seed, num_workers=config.data.num_workers,
                    shuffle=True, drop_last=True, rank=distributed.rank(), world_size=distributed.world_size())
    method = build_model(config)
    _check_sizes(config, method, views, dataset)
    method.check_batch(local_batch // config.train.accumulate, config.data.batch_size)
    if config.train.init_from:
        checkpoint.load_encoder(config.train.init_from, method.backbone)
    steps, optim = len(loader), config.optim
    total = steps * config.schedule.epochs
    return Run(config=config, device=device, method=method,
               optimizer=build_optimizer({k: v for k, v in optim.items() if k not in ("lr", "base_batch_size")},
                                         method.trainable_parameters()),
               precision=Precision(runtime.autocast_dtype(config.train.precision, device)),
               loader=loader, views=views, steps_per_epoch=steps, total_steps=total,
               last_step=min(total, config.train.max_steps or total),
               peak_lr=scaled_lr(optim.lr, config.data.batch_size, optim.base_batch_size or config.data.batch_size))


def _local_batch(config: Config) -> int:
    share, rest = divmod(config.data.batch_size, distributed.world_size() * config.train.accumulate)
    if rest:
        raise BadInput(f"'data.batch_size' is {config.data.batch_size}; expected a multiple of "
                       f"{distributed.world_size()} process(es) x train.accumulate {config.train.accumulate}")
    return share * config.train.accumulate


def build_model(config: Config) -> paddle.nn.Layer:
    """The method with its backbone and head, initialised from the seed.

    A backbone built for one image size takes the size of ``data.train_views`` unless it is given its own.
    """
    model = Config({**config.model, "backbone": sized(config.model.backbone, config.data.train_views)})
    paddle.seed(config.seed)
    return build_method(model)


def sized(backbone: Config, views: Config) -> Config:
    """The backbone entry with ``img_size`` filled in from the views, where it has that option and leaves it open."""
    if "img_size" in BACKBONES.parameters(backbone.name) and "img_size" not in backbone:
        return Config({**backbone, "img_size": build_views(views).img_size})
    return backbone


def _check_sizes(config: Config, method, views, dataset) -> None:
    if views.num_views != method.num_views:
        raise BadInput(f"method {config.model.method.name!r} needs {method.num_views} view(s) of an image, but "
                       f"'data.train_views.name' {config.data.train_views.name!r} makes {views.num_views}; "
                       f"choose another, e.g. -o data.train_views.name="
                       f"{'simclr' if method.num_views == 2 else 'inception'}")
    size = getattr(method.backbone, "img_size", None)
    for key, made in (("train_views", views), ("eval_views", build_views(config.data.eval_views))):
        if size is not None and tuple(size) != (made.img_size, made.img_size):
            raise BadInput(f"'model.backbone.img_size' is {size[0]} but 'data.{key}.img_size' is {made.img_size}; "
                           "expected the same size")
    needs_labels = config.model.method.name == "supervised"
    if needs_labels and dataset.labels is None:
        raise BadInput("method 'supervised' needs labels, but 'data.dataset.root' is a flat folder; expected one folder "
                       "per class")
    if needs_labels and dataset.labels.max() >= method.head.out_features:
        raise BadInput(f"the dataset has {int(dataset.labels.max()) + 1} classes but 'model.head.num_classes' is "
                       f"{method.head.out_features}; give -o model.head.num_classes={int(dataset.labels.max()) + 1}")
