"""Zero-shot classification: an image gets the class whose prompts have the nearest embedding.

The vector of a class is the mean of its prompts' normalised embeddings, normalised again.

Source: Radford et al. 2021, arXiv:2103.00020, sections 3.1.2 and 3.1.4 (ensembling over the embedding space).
Shapes: N images, C classes, P prompts, D embedding, L tokens of a prompt.
"""
from typing import Callable, Sequence

import numpy as np
import paddle

from passl_mixer import runtime
from passl_mixer.autocast import autocast, autocast_dtype
from passl_mixer.build import build_model, resolve
from passl_mixer.checkpoint import load_arrays, read_checkpoint
from passl_mixer.config import Config
from passl_mixer.data import build_dataset, build_views
from passl_mixer.data.vocabulary import build_tokenizer
from passl_mixer.errors import BadInput
from passl_mixer.evaluation.features import extract
from passl_mixer.text.prompts import class_prompts


def classifier(encode_text: Callable, tokenizer, prompts: Sequence[Sequence[str]], *, batch_size: int = 256):
    """Class vectors from prompts.

    Args:
        encode_text: token ids [P, L] -> normalised embeddings [P, D].
        tokenizer: has ``encode_batch(texts) -> int32 [P, L]``.
        prompts: C non-empty lists of strings.
        batch_size: prompts per forward pass.
    Returns:
        float32 [D, C]; columns have length 1.
    """
    texts = [text for group in prompts for text in group]
    ids = tokenizer.encode_batch(texts)
    with paddle.no_grad():
        embedded = [encode_text(paddle.to_tensor(ids[i:i + batch_size])).astype("float32").numpy()
                    for i in range(0, len(texts), batch_size)]
    groups = np.split(np.concatenate(embedded), np.cumsum([len(group) for group in prompts])[:-1])
    means = np.stack([group.mean(axis=0) for group in groups])
    return (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)).T


def top_k_hits(scores: np.ndarray, labels: np.ndarray, k: int) -> int:
    """Number of images whose label is among the k best scores.

    A tie counts against the label, so that a collapsed encoder scores 0.

    Args:
        scores: [N, C].
        labels: class indices, [N].
        k: >= 1.
    """
    own = scores[np.arange(len(labels)), labels]
    place = (scores >= own[:, None]).sum(axis=1)        # 1 for the best; 0 if the score is NaN
    return int(((place >= 1) & (place <= k)).sum())


def evaluate_zero_shot(config: Config, path, lines: Sequence[str], where: str) -> dict:
    """Classify the labelled test images by prompts, and print the accuracy.

    Args:
        config: the configuration; ``data.eval_dataset``, or else ``data.dataset``, has the images.
        path: checkpoint file of a method with ``encode_image`` and ``encode_text``.
        lines: of the prompt file, as in ``class_prompts``.
        where: the prompt file, for messages.
    Returns:
        ``{"top1", "top5"}`` as fractions, and ``{"images", "classes", "prompts"}`` as counts; no top5 below 6 classes.
    Raises:
        BadInput: a method without text encoder, images without classes, prompts that do not fit, or a checkpoint of
            another model.
    """
    runtime.select_device(config.train.device)
    config = resolve(config)
    dataset = build_dataset(config.data.eval_dataset or config.data.dataset, "test")
    if dataset.labels is None or dataset.labels.ndim != 1 or not dataset.class_names:
        raise BadInput("zero-shot classification needs test images with classes; name some as data.eval_dataset")
    prompts = class_prompts(lines, dataset.class_names, where)
    method = build_model(config)
    if not hasattr(method, "encode_text"):
        raise BadInput(f"zero-shot classification needs a method that reads text, but 'model.method.name' is "
                       f"{config.model.method.name!r}; expected 'clip'")
    arrays, _, meta = read_checkpoint(path)
    load_arrays(method, arrays, str(path))
    method.eval()
    vectors = classifier(method.encode_text, build_tokenizer(config.data.dataset), prompts)
    with autocast(autocast_dtype(config.train.precision, paddle.get_device())):
        embedded, labels = extract(method.encode_image, dataset, build_views(config.data.eval_views),
                                   batch_size=config.evaluate.batch_size, num_workers=config.data.num_workers)
    scores, count = embedded @ vectors, len(labels)
    hits_of = {f"top{k}": top_k_hits(scores, labels, k) for k in (1, 5) if k < len(prompts)}
    words = ", ".join(f"{key.replace('top', 'top-')} {100 * hits / count:.1f} % ({hits} of {count})"
                      for key, hits in hits_of.items())
    total = sum(map(len, prompts))
    print(f"{config.model.backbone.name} from {path} (step {meta['step']}, epoch {meta['epoch']})\n"
          f"zero-shot, {len(prompts)} classes, {total} prompts: {words}", flush=True)
    return {**{key: hits / count for key, hits in hits_of.items()}, "images": count, "classes": len(prompts),
            "prompts": total}
