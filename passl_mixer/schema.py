"""Every configuration key: its type, its default, its range. Sections with a ``name`` are checked by their registry."""
from typing import Optional, Sequence

ENTRY = object()        # a section that a registry checks: {name: ..., options}
ENTRY_OR_NULL = object()    # such a section, or none
REQUIRED = object()
ABOVE_0, FROM_0 = "above 0", "0 or more"
ITEMS = ["classifier", "knn", "linear", "labels_1", "labels_10"]
LOADERS = ["threads", "dali"]
DECAYS = ["cosine", "linear"]

# key -> (type, default, range of a number); REQUIRED keys have no default
SCHEMA = {
    "seed": (int, 0, FROM_0),
    "output_dir": (str, REQUIRED),
    "model": {"backbone": ENTRY, "head": ENTRY, "method": ENTRY},
    "data": {
        "dataset": ENTRY, "train_views": ENTRY, "eval_views": ENTRY,
        "eval_dataset": ENTRY_OR_NULL,                      # labelled images to evaluate on; null: those of dataset
        "batch_size": (int, REQUIRED, ABOVE_0),             # over all devices and accumulation steps
        "num_workers": (int, 2, FROM_0),                    # loader threads per process
        "loader": (str, "threads"),                         # of LOADERS: who decodes and augments for training
    },
    "optim": ENTRY,                                         # and the two keys of OPTIM
    "schedule": {"epochs": (int, REQUIRED, ABOVE_0), "warmup_epochs": (float, 0.0, FROM_0),
                 "warmup_steps": (Optional[int], None, FROM_0),     # in place of warmup_epochs
                 "decay": (str, "cosine"),                  # of DECAYS: from the peak to final_lr
                 "final_lr": (float, 0.0, FROM_0),
                 # in place of the decay: from these epochs on, the rate times decay_factor (null: 0.1)
                 "decay_epochs": (Optional[Sequence[float]], None), "decay_factor": (Optional[float], None, ABOVE_0)},
    "train": {
        "device": (str, "auto"), "precision": (str, "fp32"), "accumulate": (int, 1, ABOVE_0),
        "max_steps": (Optional[int], None, ABOVE_0), "log_every_steps": (int, 50, ABOVE_0),
        "checkpoint_every_epochs": (int, 1, FROM_0), "checkpoint_every_steps": (Optional[int], None, ABOVE_0),
        "keep_checkpoints": (int, 2, ABOVE_0), "visualdl": (bool, False), "collapse_threshold": (float, 0.05, FROM_0),
        "sync_batch_norm": (bool, True),                    # statistics of all processes' images; not in moco
        "recompute": (bool, False),                         # blocks' activations again in the backward pass
        "channels_last": (bool, False),                     # a GPU's convolutions on maps [B, H, W, C]
        "compile": (bool, False),                           # the backbone as one static program
        "cuda_graphs": (bool, False),                       # a GPU's forward and backward pass launched as one
        "init_from": (Optional[str], None),                 # run or checkpoint whose backbone the run starts from
    },
    "evaluate": {
        "every_epochs": (int, 0, FROM_0),                   # kNN monitor; 0: never
        "at_end": (Sequence[str], []),                      # of ITEMS
        "batch_size": (int, 256, ABOVE_0),
        "knn": {"k": (int, 20, ABOVE_0), "temperature": (float, 0.1, ABOVE_0),
                "bank_images": (Optional[int], None, ABOVE_0)},
        "linear": {"epochs": (int, 100, ABOVE_0), "lr": (float, 1.0, ABOVE_0), "batch_size": (int, 512, ABOVE_0),
                   "weight_decay": (float, 0.0, FROM_0)},
        "few_labels": {"draws": (int, 20, ABOVE_0), "l2": (float, 0.01, ABOVE_0)},
    },
}
# lr is for base_batch_size images (null: for data.batch_size) and grows linearly with data.batch_size
OPTIM = {"lr": (float, REQUIRED, ABOVE_0), "base_batch_size": (Optional[int], None, ABOVE_0)}
