"""Our backbones and heads inside PASSL 0.0.4 (``pip install "passl_mixer[passl]"``), on today's Paddle, CPU or GPU.

```python
from passl_mixer.integrations.passl import register
register()                                  # before anything of passl is imported
from passl.engine.trainer import Trainer
```

In PASSL's YAML a backbone of ours then takes its own options and three more: ``output``, ``pretrained`` and
``frozen_stages`` (``passl_layers.HostBackbone``). Set the neck's or head's ``in_channels``, and BYOL's
``embedding_dim``, to its ``num_features``. ``passl_checks`` has a table of the outputs that each PASSL model takes. The
default, pooled features as a map of one position, fits MoCo, SimCLR, BYOL and Classification.

PASSL imports ``paddle.fluid``, which Paddle began to remove in 2.5: ``passl_shim`` provides it to PASSL alone.

Fixed in PASSL at registration, without a change of what a method computes (``passl_mends.MENDS``):
- MoCo's batch shuffle calls ``.cuda()``: an error on a CPU.
- Accuracies of PASSL have shape [1], which NumPy 2.4 does not convert to a number: the log fails.
- PASSL's ResNet passes ``num_classes`` by position where Paddle has ``width`` now: ResNet-50 fails, ResNet-18 gets
  another width.
- ByolLRScheduler and ByolClassification name missing classes: a NameError when they are built.
- BYOL initialises convolutions again after ``pretrained`` was loaded: backbones of ours keep the loaded weights.
- Models check at build which output and which widths they can take (``passl_checks``).

Repaired with ``repair=True`` only, because results change (``passl_mends.REPAIRS``):
- BYOL's target network is never updated: it now is, after every optimiser step.
- Resuming reads the key 'lr_scheduler', but 'lr_sheduer' was saved, and repeats the last epoch.
- ``seed`` is not read at all; now it is, 0 included.
"""
import importlib
import importlib.metadata
import importlib.util
import re

from passl_mixer.errors import BadInput
from passl_mixer.registry import BACKBONES, HEADS

HOST, VERSION = "passl", "0.0.4"
INSTALL = 'pip install "passl_mixer[passl]"'
# {module that PASSL imports: what to install}; its wheel declares ftfy and regex only.
REQUIRED = {"cv2": "opencv-python-headless", "ftfy": "ftfy", "PIL": "pillow", "regex": "regex", "tqdm": "tqdm",
            "visualdl": "visualdl", "visualdl.server.app": "visualdl", "yaml": "pyyaml"}


def register(*, output: str = "pooled", repair: bool = False) -> list:
    """Add every backbone and head of ours to the installed PASSL.

    Names of PASSL's own (``ResNet``, ``ClasHead``) stay PASSL's. A second call changes ``output`` and can add the
    repairs; repairs stay until the process ends. After an error nothing is registered or changed.

    Args:
        output: output of a backbone if its YAML has none: "pooled" [B, C, 1, 1], "map" [B, C, H', W'] or "vector"
            [B, C].
        repair: also repair results that PASSL computes wrongly (see above).
    Returns:
        The registered names, backbones first.
    Raises:
        BadInput: PASSL or a package it needs is missing or of another version, Paddle is missing or older than 2.5, a
            name is taken by another package, or an unknown output.
    Source: the defects were seen on passl 0.0.4 with Paddle 3.3.1 and NumPy 2.4.
    """
    _check_installed()
    _import_required()
    # Paddle loads with these, after the cheap checks.
    from passl_mixer.integrations import passl_checks, passl_layers, passl_mends, passl_shim
    passl_layers.check_output(output)
    host = passl_shim.import_host()
    backbones = importlib.import_module("passl.modeling.backbones.builder").BACKBONES
    heads = importlib.import_module("passl.modeling.heads.builder").HEADS
    tables = [(backbones, "backbone", {n: passl_layers.BackboneEntry(n, output) for n in BACKBONES.names()}),
              (heads, "head", {n: passl_layers.HeadEntry(n) for n in HEADS.names()})]
    tables = [(table, _free(table._obj_map, kind, entries)) for table, kind, entries in tables]
    models = importlib.import_module("passl.modeling.architectures.builder").MODELS
    rows = [*passl_mends.MENDS, *(passl_mends.REPAIRS if repair else []), *_checks(models, backbones, passl_checks)]
    passl_mends.mend(host, rows)
    for table, entries in tables:
        table._obj_map.update(entries)      # its own register() refuses to replace what an earlier call added
    return [name for _, entries in tables for name in entries]


def _check_installed() -> None:
    """Raise ``BadInput`` unless PASSL has the known version and all packages are installed."""
    if importlib.util.find_spec(HOST) is None:
        raise BadInput(f"passl is not installed, expected {VERSION}; {INSTALL}")
    try:
        installed = importlib.metadata.version(HOST)
    except importlib.metadata.PackageNotFoundError as error:
        raise BadInput(f"there is a passl of unknown version, expected {VERSION} from PyPI; {INSTALL}") from error
    if installed != VERSION:
        raise BadInput(f"passl {installed} is installed, expected {VERSION}; {INSTALL}")
    missing = sorted({name for module, name in REQUIRED.items()
                      if importlib.util.find_spec(module.split(".")[0]) is None})
    if missing:
        raise BadInput(f"passl {VERSION} also needs {', '.join(missing)}; {INSTALL}")
    if importlib.util.find_spec("paddle") is None:
        raise BadInput('Paddle is not installed, expected 2.5 or newer; pip install "passl_mixer[cpu]", or [gpu]')


def _import_required() -> None:
    """Import the packages that PASSL needs, so that only PASSL is imported while ``paddle.fluid`` is in place."""
    import paddle
    release = re.match(r"(\d+)\.(\d+)", paddle.__version__)
    if release and (0, 0) < tuple(map(int, release.groups())) < (2, 5):     # a build from source says 0.0.0
        raise BadInput(f"Paddle {paddle.__version__} is installed, expected 2.5 or newer; upgrade Paddle")
    for module in REQUIRED:
        importlib.import_module(module)


def _free(taken: dict, kind: str, entries: dict) -> dict:
    """The entries to add: those of an earlier call are replaced, PASSL's own names stay PASSL's."""
    mine = {}
    for name, entry in entries.items():
        owner = taken.get(name)
        if owner is None or type(owner) is type(entry):
            mine[name] = entry
        elif not getattr(owner, "__module__", "").startswith(f"{HOST}."):
            raise BadInput(f"{kind} {name!r} is registered in PASSL already, by {getattr(owner, '__module__', owner)}; "
                           "call register() before it and give it another name")
    return mine


def _checks(models, backbones, passl_checks) -> list:
    """Rows for ``mend``: the checks around the constructors of PASSL's models."""
    def row(name):
        cls = models.get(name)
        return (f"{cls.__module__}:{name}.__init__", "checks at build what it can take",
                lambda original: passl_checks.checked(original, name, backbones))
    return [row(name) for name in passl_checks.MODELS]
