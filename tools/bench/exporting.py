"""A network exported as users export one: checkpoint and configuration, ``passl-mixer export``, the loaded model."""
import tempfile
from pathlib import Path

import yaml

from passl_mixer import checkpoint, cli, get_config


def exported(method, backbone: dict, size: int, classes: int, precision: str):
    """The function images [B, 3, H, W] -> scores of the exported encoder and head.

    Args:
        method: supervised, with its weights.
        backbone: its backbone's entry.
        size: pixels it is exported for.
        classes: of its head.
        precision: fp32 or bf16, of its products.
    Raises:
        RuntimeError: the command failed; its own words are on standard error.
    """
    from passl_mixer.deploy.export import load_exported

    with tempfile.TemporaryDirectory(prefix="passl_mixer_benchmark_") as name:
        folder = Path(name)
        file, weights, out = folder / "config.yaml", folder / "step_0000000.safetensors", folder / "exported"
        views = {"name": "center_crop", "img_size": size}
        file.write_text(yaml.safe_dump({
            "output_dir": str(folder / "run"),
            "model": {"backbone": backbone, "head": {"name": "linear", "num_classes": classes}, "method": "supervised"},
            "data": {"dataset": {"name": "synthetic", "num_images": 8}, "train_views": views, "eval_views": views,
                     "batch_size": 8},
            "optim": {"name": "adamw", "lr": 1e-3}, "schedule": {"epochs": 1}}), encoding="utf-8")
        meta = {"step": 0, "epoch": 0, "seconds": 0.0, "best_knn": -1.0, "config": get_config(file), "precision": {}}
        checkpoint.save_checkpoint(weights, checkpoint.arrays_of(method), {}, meta)
        code = cli.main(["export", str(weights), str(out), "-c", str(file), "--what", "logits"])
        if code:
            raise RuntimeError(f"passl-mixer export ended with code {code}")
        return load_exported(out, precision=precision)
