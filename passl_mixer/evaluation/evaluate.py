"""Evaluation of an encoder, beside the same encoder untrained and raw pixels."""
from typing import Callable

import numpy as np
import paddle

from passl_mixer import runtime
from passl_mixer.autocast import autocast, autocast_dtype
from passl_mixer.build import build_untrained, resolve
from passl_mixer.checkpoint import load_arrays, load_encoder, read_checkpoint
from passl_mixer.config import Config
from passl_mixer.data import build_dataset, build_views
from passl_mixer.evaluation.features import Subset, encoder_features, extract, labelled_part, raw_pixels
from passl_mixer.evaluation.probes import few_label_accuracy, knn_accuracy, linear_probe
from passl_mixer.log import table
from passl_mixer.schema import check_items


def probe_accuracies(encode: Callable, train, test, views, settings, items, *, num_workers: int = 2) -> dict:
    """Accuracies of an encoder after one pass of feature extraction.

    Args:
        encode: images [B, 3, H, W] -> features [B, D].
        train, test: labelled datasets; the first trains the classifiers, the second is classified.
        views: evaluation views.
        settings: the configuration's ``evaluate`` section.
        items: of knn, linear, labels_1, labels_10.
        num_workers: loader threads.
    Returns:
        ``{item: accuracy}``, 0 to 1.
    """
    train, voters = labelled_part(train, settings.labelled_images), settings.knn.bank_images
    limit = voters if list(items) == ["knn"] else None
    common = {"batch_size": settings.batch_size, "num_workers": num_workers}
    bank, bank_labels = extract(encode, train, views, limit=limit, **common)
    queries, labels = extract(encode, test, views, **common)
    result = {}
    for item in items:
        if item == "knn":
            rows = np.arange(len(bank))
            if limit is None and voters:
                rows = Subset(train, min(voters, len(bank))).indices
            result[item] = knn_accuracy(bank[rows], bank_labels[rows], queries, labels,
                                       k=settings.knn.k, temperature=settings.knn.temperature)
        elif item == "linear":
            result[item] = linear_probe(bank, bank_labels, queries, labels, **settings.linear)
        else:
            result[item] = few_label_accuracy(bank, bank_labels, queries, labels,
                                             labels_per_class=int(item.rpartition("_")[2]), **settings.few_labels)
    return result


def evaluate_features(config: Config, encode: Callable, items) -> dict:
    """Accuracies of an encoder on a configuration's data.

    Args:
        config: the configuration.
        encode: images [B, 3, H, W] -> features [B, D], from ``encoder_features``, or ``raw_pixels``.
        items: of knn, linear, labels_1, labels_10.
    Returns:
        ``{item: accuracy}``, 0 to 1.
    """
    data, labelled = config.data, config.data.eval_dataset or config.data.dataset
    return probe_accuracies(encode, build_dataset(labelled, "train"), build_dataset(labelled, "test"),
                   build_views(data.eval_views), config.evaluate, items, num_workers=data.num_workers)


def compare_encoders(config: Config, pretrained, untrained, items) -> dict:
    """Accuracies of an encoder beside the same encoder untrained and raw pixels.

    Args:
        config: the configuration.
        pretrained, untrained: encoders, [B, 3, H, W] -> [B, D].
        items: of knn, linear, labels_1, labels_10.
    Returns:
        ``{item: {"pretrained": accuracy, "untrained": ..., "raw_pixels": ...}}``, 0 to 1.
    """
    precision = config.train.precision
    encoders = {"pretrained": encoder_features(pretrained, precision),
                "untrained": encoder_features(untrained, precision), "raw_pixels": raw_pixels}
    result = {who: evaluate_features(config, encode, items) for who, encode in encoders.items()}
    return {item: {who: round(result[who][item], 4) for who in encoders} for item in items}


def classifier_accuracy(config: Config, method) -> float:
    """Top-1 accuracy, 0 to 1, of the classifier of method ``supervised`` on the test images."""
    dtype = autocast_dtype(config.train.precision, paddle.get_device())

    def scores(images):
        with autocast(dtype):
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


def evaluate_method(config: Config, method, items, *, baselines: bool = True) -> dict:
    """Accuracies of a trained method.

    Args:
        config: the configuration.
        method: from ``build_method``.
        items: of classifier, knn, linear, labels_1, labels_10.
        baselines: evaluate the untrained encoder and raw pixels too, which have no classifier.
    Returns:
        ``{item: {"pretrained": accuracy, "untrained": ..., "raw_pixels": ...}}``, 0 to 1, in the order of ``items``.
    """
    result, probes = {}, [item for item in items if item != "classifier"]
    if probes and baselines:
        result = compare_encoders(config, method.encoder, build_untrained(config).encoder, probes)
    elif probes:
        alone = evaluate_features(config, encoder_features(method.encoder, config.train.precision), probes)
        result = {item: {"pretrained": round(value, 4)} for item, value in alone.items()}
    if "classifier" in items:
        result["classifier"] = {"pretrained": round(classifier_accuracy(config, method), 4)}
    return {item: result[item] for item in items}


def comparison_table(result: dict) -> str:
    """The result of ``evaluate_method`` as text, in percent."""
    names = {"knn": "kNN", "linear": "linear probe, all labels", "labels_1": "1 label per class",
             "labels_10": "10 labels per class", "classifier": "the trained classifier"}
    columns = list(max(result.values(), key=len))
    rows = [[names[item], *(f"{100 * row[who]:.1f}" if who in row else "-" for who in columns)]
            for item, row in result.items()]
    return table(rows, ["accuracy in %", *(who.replace("_", " ") for who in columns)])


def evaluate_checkpoint(config: Config, path, items, *, baselines: bool = True) -> dict:
    """Evaluate a checkpoint and print the table.

    Args:
        config: the configuration; its backbone must be the checkpoint's.
        path: checkpoint file.
        items: of classifier, knn, linear, labels_1, labels_10.
        baselines: evaluate the untrained encoder and raw pixels too.
    Returns:
        As ``evaluate_method``.
    """
    check_items(items, config)
    runtime.select_device(config.train.device)
    config = resolve(config)
    method = build_untrained(config)
    meta = load_encoder(path, method.encoder)
    if "classifier" in items:
        load_arrays(method, read_checkpoint(path)[0], str(path))
    print(f"{config.model.backbone.name} from {path} (step {meta['step']}, epoch {meta['epoch']})", flush=True)
    result = evaluate_method(config, method, items, baselines=baselines)
    print(comparison_table(result), flush=True)
    return result
