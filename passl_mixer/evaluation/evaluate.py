"""What an encoder's features are worth, beside the same encoder untrained and bare pixels.

Features are computed once and handed to the classifiers of ``probes``. Shapes: N images, D features.
"""
import functools
from typing import Callable, Optional

import numpy as np
import paddle

from passl_mixer import runtime
from passl_mixer.build import build_untrained, resolve
from passl_mixer.checkpoint import load_arrays, load_encoder, read_checkpoint
from passl_mixer.config import Config, check_items
from passl_mixer.data import build_dataset, build_views
from passl_mixer.data.loader import Loader
from passl_mixer.errors import BadInput
from passl_mixer.evaluation.probes import few_label_accuracy, knn_accuracy, linear_probe
from passl_mixer.log import table


def as_tensor(array) -> paddle.Tensor:
    """A NumPy array as a tensor on the current device; a tensor, which was copied ahead, as it is."""
    return array if paddle.is_tensor(array) else paddle.to_tensor(array)


def to_images(views_u8, mean, std) -> paddle.Tensor:
    """uint8 pictures [B, H, W, 3] as a normalised float32 tensor [B, 3, H, W].

    Args:
        views_u8: RGB pixels, 0-255; array or tensor.
        mean, std: per channel, in units where white is 1.
    """
    batch, height, width, channels = views_u8.shape
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), width, paddle.get_device())
    # one long row per line of pixels: Paddle's CPU kernels broadcast a row fast and [1, 3, 1, 1] slowly
    rows = as_tensor(views_u8).reshape([batch * height, width * channels]).astype("float32")
    rows = rows * scale + shift
    return rows.reshape([batch, height, width, channels]).transpose([0, 3, 1, 2])


@functools.lru_cache(maxsize=16)
def _scale_and_shift(mean: tuple, std: tuple, width: int, _device: str) -> tuple:
    """What a row of pixels is multiplied by and what is added; kept, so that a GPU gets it once."""
    scale = np.tile(1.0 / (255.0 * np.asarray(std, np.float32)), width)
    shift = np.tile(-np.asarray(mean, np.float32) / np.asarray(std, np.float32), width)
    return paddle.to_tensor(scale), paddle.to_tensor(shift)


def extract(encode: Callable, dataset, views, *, batch_size: int, num_workers: int = 2, limit: Optional[int] = None):
    """Features of a labelled dataset.

    Args:
        encode: images [B, 3, H, W] -> features [B, D].
        dataset, views: as built by ``build_dataset`` and ``build_views``; one view per image.
        batch_size: images per forward pass.
        num_workers: loader threads.
        limit: use this many images, drawn evenly over the dataset; None for all.
    Returns:
        ``(features float32 [N, D], labels int64 [N])``.
    Raises:
        BadInput: the dataset has no labels.
    """
    if dataset.labels is not None and dataset.labels.ndim != 1:
        raise BadInput("evaluation needs classes, but the dataset has captions; name images with classes as "
                       "data.eval_dataset, or use -o evaluate.every_epochs=0 -o evaluate.at_end=[]")
    if dataset.labels is None:
        raise BadInput("evaluation needs labels, but the dataset is a flat folder without classes; "
                       "use -o evaluate.every_epochs=0 -o evaluate.at_end=[] to train without evaluation")
    chosen = dataset if limit is None or limit >= len(dataset) else Subset(dataset, limit)
    loader = Loader(chosen, views, batch_size=batch_size, seed=0, num_workers=num_workers, shuffle=False,
                    drop_last=False)
    features, labels = [], []
    with paddle.no_grad():
        for (pictures,), batch_labels in loader.epoch(0):
            features.append(encode(to_images(pictures, views.mean, views.std)).astype("float32").numpy())
            labels.append(batch_labels)
    return np.concatenate(features), np.concatenate(labels)


class Subset:
    """Every class in its share: ``limit`` images at even distances of the dataset ordered by class."""

    def __init__(self, dataset, limit: int):
        order = np.argsort(dataset.labels, kind="stable")
        self.indices = np.sort(order[np.linspace(0, len(order) - 1, limit).round().astype(int)])
        self.dataset, self.labels, self.class_names = dataset, dataset.labels[self.indices], dataset.class_names

    def __len__(self):
        return len(self.indices)

    def image(self, index: int) -> np.ndarray:
        """Picture ``index`` of the subset, uint8 [H, W, 3]."""
        return self.dataset.image(int(self.indices[index]))


def encoder_features(encoder) -> Callable:
    """The encoder in evaluation mode as a function for ``extract``; its mode is put back after every call."""
    def encode(images):
        was_training = encoder.training
        encoder.eval()
        try:
            return encoder(images)
        finally:
            if was_training:
                encoder.train()
    return encode


def raw_pixels(images: paddle.Tensor) -> paddle.Tensor:
    """The baseline encoder: the picture's own numbers, flattened to [B, 3HW]."""
    return images.flatten(1)


def measure(encode: Callable, train, test, views, settings, items, *, num_workers: int = 2) -> dict:
    """The accuracies asked for, on one pass of feature extraction.

    Args:
        encode: images [B, 3, H, W] -> features [B, D].
        train, test: labelled datasets; the first votes or trains, the second is classified.
        views: evaluation views.
        settings: the configuration's ``evaluate`` section.
        items: of knn, linear, labels_1, labels_10.
    Returns:
        ``{item: accuracy}``, 0 to 1.
    """
    limit = settings.knn.bank_images if list(items) == ["knn"] else None
    common = {"batch_size": settings.batch_size, "num_workers": num_workers}
    bank, bank_labels = extract(encode, train, views, limit=limit, **common)
    queries, labels = extract(encode, test, views, **common)
    found = {}
    for item in items:
        if item == "knn":
            rows = np.arange(len(bank))
            if limit is None and settings.knn.bank_images:
                rows = Subset(train, min(settings.knn.bank_images, len(bank))).indices
            found[item] = knn_accuracy(bank[rows], bank_labels[rows], queries, labels,
                                       k=settings.knn.k, temperature=settings.knn.temperature)
        elif item == "linear":
            found[item] = linear_probe(bank, bank_labels, queries, labels, **settings.linear)
        else:
            found[item] = few_label_accuracy(bank, bank_labels, queries, labels,
                                             labels_per_class=int(item.rpartition("_")[2]), **settings.few_labels)
    return found


def evaluation(config: Config, encode: Callable, items) -> dict:
    """Accuracies of an encoder on a configuration's data.

    Args:
        config: the configuration.
        encode: images [B, 3, H, W] -> features [B, D], as ``encoder_features`` makes it or ``raw_pixels``.
        items: of knn, linear, labels_1, labels_10.
    Returns:
        ``{item: accuracy}``, 0 to 1.
    """
    data, labelled = config.data, config.data.eval_dataset or config.data.dataset
    return measure(encode, build_dataset(labelled, "train"), build_dataset(labelled, "test"),
                   build_views(data.eval_views), config.evaluate, items, num_workers=data.num_workers)


def compare(config: Config, pretrained, untrained, items) -> dict:
    """``{item: {"pretrained", "untrained", "raw_pixels"}}``: an encoder beside itself untrained and bare pixels."""
    encoders = {"pretrained": encoder_features(pretrained), "untrained": encoder_features(untrained),
                "raw_pixels": raw_pixels}
    found = {who: evaluation(config, encode, items) for who, encode in encoders.items()}
    return {item: {who: round(found[who][item], 4) for who in encoders} for item in items}


def classifier_accuracy(config: Config, method) -> float:
    """Share of the test images, 0 to 1, whose class the classifier that ``supervised`` trained ranks first."""
    def scores(images):
        return method.head(method.backbone(images))

    was_training = method.training
    method.eval()
    try:
        data = config.data
        dataset = build_dataset(data.eval_dataset or data.dataset, "test")
        ranked, labels = extract(scores, dataset, build_views(data.eval_views), batch_size=config.evaluate.batch_size,
                                 num_workers=data.num_workers)
    finally:
        if was_training:
            method.train()
    return float((ranked.argmax(axis=1) == labels).mean())


def report(config: Config, method, items, *, baselines: bool = True) -> dict:
    """Everything asked for, of a trained method.

    Args:
        config: the configuration.
        method: as ``build_method`` makes it.
        items: of classifier, knn, linear, labels_1, labels_10.
        baselines: measure the untrained encoder and raw pixels too, which have no classifier.
    Returns:
        ``{item: {"pretrained": accuracy, "untrained": ..., "raw_pixels": ...}}``, 0 to 1, in the order of ``items``.
    """
    found, probes = {}, [item for item in items if item != "classifier"]
    if probes and baselines:
        found = compare(config, method.encoder, build_untrained(config).encoder, probes)
    elif probes:
        alone = evaluation(config, encoder_features(method.encoder), probes)
        found = {item: {"pretrained": round(value, 4)} for item, value in alone.items()}
    if "classifier" in items:
        found["classifier"] = {"pretrained": round(classifier_accuracy(config, method), 4)}
    return {item: found[item] for item in items}


def comparison_table(found: dict) -> str:
    """The result of ``report`` as text, in percent."""
    names = {"knn": "kNN", "linear": "linear probe, all labels", "labels_1": "1 label per class",
             "labels_10": "10 labels per class", "classifier": "the trained classifier"}
    columns = list(max(found.values(), key=len))
    rows = [[names[item], *(f"{100 * row[who]:.1f}" if who in row else "-" for who in columns)]
            for item, row in found.items()]
    return table(rows, ["accuracy in %", *(who.replace("_", " ") for who in columns)])


def evaluate_checkpoint(config: Config, path, items, *, baselines: bool = True) -> dict:
    """Measure a checkpoint and print the table; with ``baselines`` beside the untrained encoder and raw pixels.

    Args:
        config: the configuration; its backbone must be the checkpoint's.
        path: checkpoint file.
        items: of classifier, knn, linear, labels_1, labels_10.
        baselines: measure the untrained encoder and raw pixels too.
    Returns:
        As ``report``.
    """
    check_items(items, config)
    runtime.select_device(config.train.device)
    config = resolve(config)
    method = build_untrained(config)
    meta = load_encoder(path, method.encoder)
    if "classifier" in items:
        load_arrays(method, read_checkpoint(path)[0], str(path))
    print(f"{config.model.backbone.name} from {path} (step {meta['step']}, epoch {meta['epoch']})", flush=True)
    found = report(config, method, items, baselines=baselines)
    print(comparison_table(found), flush=True)
    return found
