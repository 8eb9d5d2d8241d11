"""From a configuration to the model: what other sections decide is filled in, and the method is built."""
from collections.abc import Mapping

import paddle

from passl_mixer.config import Config
from passl_mixer.data import build_views
from passl_mixer.data.vocabulary import build_tokenizer, has_vocabulary
from passl_mixer.errors import BadInput
from passl_mixer.methods import build_method
from passl_mixer.registry import BACKBONES, DATASETS


def build_model(config: Config) -> paddle.nn.Layer:
    """The method with its backbone and head, initialised from the seed.

    Args:
        config: as ``resolve`` returns it.
    Raises:
        BadInput: options that do not fit, named by their keys.
    """
    paddle.seed(config.seed)
    return build_method(config.model)


def build_untrained(config: Config) -> paddle.nn.Layer:
    """As ``build_model``, without the backbone's ``pretrained`` weights, for comparison with a checkpoint."""
    backbone = Config({key: value for key, value in config.model.backbone.items() if key != "pretrained"})
    return build_model(Config({**config, "model": Config({**config.model, "backbone": backbone})}))


def resolve(config: Config, views=None) -> Config:
    """Fill in what the configuration leaves open and other sections decide.

    The image size of a backbone that is bound to one, and the size, mean and std of the evaluation views, come from
    ``data.train_views``. CLIP's text tower gets its vocabulary size and context length from the captions. A resolved
    configuration stays as it is.

    Args:
        config: from ``get_config``.
        views: the training views, if they are built already.
    Returns:
        A new configuration.
    Raises:
        BadInput: method ``clip`` with a dataset without captions.
    """
    views = views or build_views(config.data.train_views)
    backbone, evaluation = dict(config.model.backbone), dict(config.data.eval_views)
    if "img_size" in BACKBONES.parameters(backbone["name"]):
        backbone.setdefault("img_size", views.img_size)
    for key, value in (("img_size", views.img_size), ("mean", list(views.mean)), ("std", list(views.std))):
        evaluation.setdefault(key, value)
    model = {**config.model, "backbone": Config(backbone), "method": _with_text_sizes(config)}
    return Config({**config, "model": Config(model),
                   "data": Config({**config.data, "eval_views": Config(evaluation)})})


TEXT_SIZES = ("vocab_size", "context_length")


def _with_text_sizes(config: Config) -> Config:
    """The method's entry; in CLIP's the sizes of the text tower that follow from the captions are filled in."""
    method = config.model.method
    given = method.get("text", Config())
    if method.name != "clip" or not isinstance(given, Mapping) or all(key in given for key in TEXT_SIZES):
        return method
    if has_vocabulary(config.data.dataset.name):
        captions = build_tokenizer(config.data.dataset)         # neither images nor captions need be there
    else:
        captions = DATASETS.build(config.data.dataset, split="train")
        require_captions(config, captions)
    return Config({**method, "text": Config({**{key: getattr(captions, key) for key in TEXT_SIZES}, **given})})


def require_captions(config: Config, dataset) -> None:
    """Raise ``BadInput`` unless a dataset has captions, which method ``clip`` needs.

    Args:
        config: for the dataset's name.
        dataset: as ``build_dataset`` makes it.
    Raises:
        BadInput: it has none.
    """
    if not hasattr(dataset, "vocab_size"):
        raise BadInput(f"method 'clip' needs captions, but dataset {config.data.dataset.name!r} has none; choose an "
                       "image-text dataset, e.g. -o data.dataset.name=image_text_folder")
