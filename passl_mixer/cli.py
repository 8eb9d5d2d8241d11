"""The command line: ``passl-mixer train | eval | export | list | convert | weights | bpe``; ``tools/*.py`` use it.

Exit codes: 0 done, 2 bad input, 3 numerical failure, 130 interrupted (checkpoint saved).
"""
import argparse
import fnmatch
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import Optional, Sequence

from passl_mixer import get_config
from passl_mixer.config import dump, plain, read_config
from passl_mixer.errors import BadInput, NumericalFailure, nearest
from passl_mixer.schema import ITEMS


def _require_paddle() -> None:
    if importlib.util.find_spec("paddle") is None:
        raise BadInput("Paddle is not installed; pip install -e '.[cpu]', or '.[gpu]', or the build of your choice")


def _dump(arguments, config, notes) -> int:
    """Write the whole configuration, in our keys, as a file that runs by itself."""
    from passl_mixer.files import write_atomic
    target = Path(arguments.dump)
    if target.exists():
        raise BadInput(f"{target} exists; remove it or choose another name for --dump")
    header = [f"# {Path(arguments.config).name} with every default filled in, by passl-mixer train --dump",
              *(f"# translated from PASSL: {note}" for note in notes or ())]
    write_atomic(target, ("\n".join(header) + "\n" + dump(config)).encode())
    print(f"wrote {target}; run it with: passl-mixer train -c {target}")
    return 0


def _train(arguments) -> int:
    config, notes = read_config(arguments.config, arguments.override)
    if notes is not None and os.environ.get("PADDLE_TRAINER_ID", "0") == "0":
        from passl_mixer.passl_yaml.translate import report
        print(report(arguments.config, plain(config), notes), flush=True)
    if arguments.dump:
        return _dump(arguments, config, notes)
    from passl_mixer.data import check_dataset
    check_dataset(config.data.dataset)          # before Paddle loads: a missing folder is said within a second
    if config.data.eval_dataset:
        check_dataset(config.data.eval_dataset, "test")
    _require_paddle()
    from passl_mixer.training.trainer import train
    summary = train(config, resume=arguments.resume)
    return 130 if summary.get("interrupted") else 0


def _eval(arguments) -> int:
    config = get_config(arguments.config, arguments.override)
    from passl_mixer.data import check_dataset
    items, prompts = [item for item in ITEMS if getattr(arguments, item)], arguments.zero_shot
    check_dataset(config.data.eval_dataset or config.data.dataset, "test" if prompts else "train")
    from passl_mixer.checkpoint import find_checkpoint
    path = find_checkpoint(arguments.checkpoint)
    if prompts:
        from passl_mixer.text.prompts import read_prompts
        lines = read_prompts(prompts)
    _require_paddle()
    if prompts:
        from passl_mixer.evaluation.zero_shot import evaluate_zero_shot
        evaluate_zero_shot(config, path, lines, prompts)
    if items or not prompts:
        from passl_mixer.evaluation.evaluate import evaluate_checkpoint
        evaluate_checkpoint(config, path, items or config.evaluate.at_end or ["knn"],
                            baselines=not arguments.no_baselines)
    return 0


def _list(arguments) -> int:
    _require_paddle()
    from passl_mixer import list_backbones
    from passl_mixer.surgery.macs import summary
    names = list_backbones(arguments.pattern)
    if not names:
        raise BadInput(f"no backbone matches {arguments.pattern!r}{nearest(arguments.pattern, list_backbones())}")
    first = max(map(len, ["backbone", *names]))
    columns = f"{{:<{first}}}  {{:>11}}  {{:>7}}  {{:>7}}  {{}}"
    print(columns.format("backbone", "parameters", "GMACs", "at", "image size"))
    for size in map(summary, names):                # each as soon as it is counted
        height, width = size["img_size"]
        print(columns.format(size["name"], f"{size['parameters']:,}", f"{size['macs'] / 1e9:.2f}", f"{height}x{width}",
                             "any" if size["any_size"] else "fixed when built"), flush=True)
    print("parameters and GMACs include a 1000-class linear head, as in the published tables")
    return 0


def _convert(arguments) -> int:
    from passl_mixer.weights.convert import export_file, import_file
    if arguments.to is None:
        said = import_file(arguments.input, arguments.output, family=arguments.family, source=arguments.source,
                           allow=arguments.allow)
    elif arguments.family is None or arguments.source is not None or arguments.allow:
        raise BadInput("--to wants --family, and neither --source nor --allow")
    else:
        said = export_file(arguments.input, arguments.output, family=arguments.family, target=arguments.to)
    print(said)
    return 0


def _weights(arguments) -> int:
    from passl_mixer.log import table
    from passl_mixer.weights.zoo import CHECKPOINTS
    known = [c for c in CHECKPOINTS if fnmatch.fnmatchcase(c.backbone, arguments.pattern)]
    if not known:
        raise BadInput(f"no published checkpoint of {arguments.pattern!r} is known"
                       f"{nearest(arguments.pattern, sorted({c.backbone for c in CHECKPOINTS}))}")
    print(table([[c.backbone, c.trained_on, c.top1 or "-", c.reported_in or "-", c.file] for c in known],
                ["backbone", "trained on", "top-1", "reported in", "file"]))
    for c in known if len(known) < len(CHECKPOINTS) else []:
        print(f"\n{c.file}: {c.img_size} px, mean {c.mean}, std {c.std}, crop {c.crop}, {c.interpolation}"
              + (f", SHA-256 begins with {c.sha256}" if c.sha256 else ", no checksum published")
              + (f"; {c.note}" if c.note else "")
              + f"\n  curl -LO {c.url}\n  passl-mixer convert {c.file} {c.backbone}.safetensors --family {c.family} "
              f"--source {c.source}" + (" --allow 'head.*'" if "no classifier" in c.note else ""))
    print("\ntop-1 is as reported there, not measured here. Nothing is downloaded for you; a name or pattern, e.g. "
          "passl-mixer weights mlp_mixer_b16, prints how to fetch and convert.")
    return 0


def _export(arguments) -> int:
    config = get_config(arguments.config, arguments.override)
    _require_paddle()
    from passl_mixer.deploy.export import batch_of, export_checkpoint
    print(export_checkpoint(config, arguments.checkpoint, arguments.output, what=arguments.what, batch=batch_of(
        arguments.batch), img_size=arguments.img_size, onednn=not arguments.no_onednn))
    return 0


def _bpe(arguments) -> int:
    from passl_mixer.data.vocabulary import captions_at
    from passl_mixer.text import train_bpe, write_merges
    if os.path.exists(arguments.output):
        raise BadInput(f"{arguments.output} exists; remove it or choose another name")
    merges = train_bpe(captions_at(arguments.captions), arguments.merges)
    write_merges(arguments.output, merges)
    print(f"{arguments.output}: {len(merges)} merges, a vocabulary of {514 + len(merges)} tokens"
          + ("; no pair is left that occurs twice" if len(merges) < arguments.merges else ""))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="passl-mixer",
                                     description="Self-supervised pretraining of MLP vision backbones.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-c", "--config", required=True, help="YAML file, e.g. configs/quickstart.yaml")
    shared.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE",
                        help="change one key, typed as YAML, e.g. -o optim.lr=1e-3; may be repeated")
    shared.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                        help="show the traceback of an error")

    train = commands.add_parser("train", parents=[shared], help="pretrain or train from a configuration")
    train.add_argument("--resume", action="store_true",
                       help="continue the run in output_dir if there is one, start it otherwise")
    train.add_argument("--dump", metavar="OUT.yaml", help="write the whole configuration, a PASSL file's in our keys, "
                       "and stop")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("eval", parents=[shared], help="measure what a checkpoint's features are worth")
    evaluate.add_argument("--checkpoint", required=True, metavar="RUN", help="run folder or .safetensors file")
    evaluate.add_argument("--classifier", action="store_true", help="top-1 of the classifier that supervised trained")
    evaluate.add_argument("--knn", action="store_true", help="weighted k nearest neighbours")
    evaluate.add_argument("--linear", action="store_true", help="linear probe on all labels")
    evaluate.add_argument("--labels-1", action="store_true", help="one label per class, mean over draws")
    evaluate.add_argument("--labels-10", action="store_true", help="ten labels per class, mean over draws")
    evaluate.add_argument("--zero-shot", metavar="PROMPTS",
                          help="classify by words: a text file of templates with {}, or of one line a class")
    evaluate.add_argument("--no-baselines", action="store_true", help="leave the untrained encoder and raw pixels out")
    evaluate.set_defaults(run=_eval)

    listing = commands.add_parser("list", help="backbones with parameters, GMACs and size flexibility")
    listing.add_argument("pattern", nargs="?", default="*", help="shell pattern, e.g. 'cycle_mlp_*'")
    listing.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    listing.set_defaults(run=_list)

    weights = commands.add_parser("weights", help="published checkpoints: where they are and how to convert them")
    weights.add_argument("pattern", nargs="?", default="*", help="backbone or shell pattern, e.g. 'cycle_mlp_*'")
    weights.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    weights.set_defaults(run=_weights)

    convert = commands.add_parser("convert", help="reference weights into a checkpoint of ours, or back")
    convert.add_argument("input", metavar="IN", help=".npz, .safetensors, .pth, .bin or .pdparams; with --to a run "
                         "folder or checkpoint of ours")
    convert.add_argument("output", metavar="OUT", help="file to write: .safetensors, with --to also .npz")
    convert.add_argument("--family", help="e.g. mlp_mixer, cycle_mlp; told by the names if left out")
    convert.add_argument("--source", help="whose names: timm, official, google, paddlevit, passl")
    convert.add_argument("--allow", action="append", default=[], metavar="PATTERN",
                         help="names that may be missing or unexpected, e.g. 'head.*'; may be repeated")
    convert.add_argument("--to", metavar="TARGET", help="write a reference's names: timm or official")
    convert.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    convert.set_defaults(run=_convert)

    export = commands.add_parser("export", parents=[shared], help="a checkpoint as a program for Paddle's predictor")
    export.add_argument("checkpoint", metavar="RUN", help="run folder or .safetensors file")
    export.add_argument("output", metavar="OUT", help="folder to write")
    export.add_argument("--what", default="features", help="features (default), logits or maps")
    export.add_argument("--img-size", type=int, metavar="N", help="pixels; of the evaluation views if left out")
    export.add_argument("--batch", default="dynamic", metavar="N", help="images per call; dynamic (default): any")
    export.add_argument("--no-onednn", action="store_true", help="never run it with oneDNN")
    export.set_defaults(run=_export)

    bpe = commands.add_parser("bpe", help="learn a vocabulary for captions, in CLIP's format of merges")
    bpe.add_argument("captions", metavar="CAPTIONS", help="text file with one caption a line, .csv, .tsv, .jsonl or "
                     ".tar, or a folder of images with texts")
    bpe.add_argument("output", metavar="OUT", help="file to write; compressed if its name ends in .gz")
    bpe.add_argument("--merges", type=int, required=True, metavar="N", help="how many to learn; CLIP has 48894")
    bpe.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    bpe.set_defaults(run=_bpe)
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    # Paddle says these at import, in static graphs and at the first BatchNorm; nothing a user of ours can act on
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.filterwarnings("ignore", message="No ccache found")
    warnings.filterwarnings("ignore", message="When training, we now always track")
    warnings.filterwarnings("ignore", message="Tensor do not have 'place' interface for pir")
    try:
        return arguments.run(arguments)
    except (BadInput, NumericalFailure) as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 3
    except BrokenPipeError:                     # e.g. `passl-mixer list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:                    # a folder that cannot be written, a full disk
        if arguments.debug or (error.filename is None and error.strerror is None):
            raise
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:                   # outside the training loop, which saves before it ends
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
