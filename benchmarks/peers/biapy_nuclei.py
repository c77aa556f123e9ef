"""BiaPy on what export.py wrote as folders; runs in BiaPy's own environment.

    ENV/bin/python benchmarks/peers/biapy_nuclei.py DATA OUT --budget 20m

The recipe is that of its template for instances in 2D: a U-Net that learns foreground and contour
(the template's "BC"), patches of 256, turns and flips, AdamW, the weights with the best validation
loss, and a watershed. The budget ends the training after a whole epoch.
"""

import sys
import types
from typing import Any

import folders
import numpy as np
import running
import tifffile

EPOCHS, PATIENCE = 360, 50  # of the template


def main() -> None:
    given = running.parser(__doc__).parse_args()
    running.begin(given)
    run = running.Run("BiaPy", ["biapy", "torch", "torchvision"], given)
    # torchvision from the package index does not know the operators of PyTorch's CPU build; BiaPy
    # imports it, and uses none of them.
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("_meta_registrations")
    from biapy import BiaPy
    from biapy.engine import base_workflow
    from biapy.utils.callbacks import EarlyStopping

    class Budget(EarlyStopping):  # type: ignore[misc]
        """Stops when the next epoch would leave the budget further behind than this one."""

        epochs = 0

        def __call__(self, loss: float) -> None:
            super().__call__(loss)
            self.epochs += 1
            self.early_stop |= run.used * (1 + 0.5 / self.epochs) >= 1

    budget = Budget(patience=PATIENCE)

    def started(_: Any) -> Budget:
        """Take BiaPy's early stopping's place; it is asked for when all else is prepared."""
        run.now("training")
        return budget

    base_workflow.build_callbacks = started
    run.now("preprocessing")
    (channels,) = {
        image.shape[-1] if image.ndim == 3 else 1 for image in folders.read(run, "train")
    }
    job = BiaPy(recipe(run, channels), result_dir=str(run.out), name="biapy", verbose=True)
    job.train()
    run.facts["steps"] = budget.epochs * len(job.workflow.train_generator)
    run.now("prediction")
    job.test()
    (found,) = run.out.rglob("per_image_instances")
    for name in run.names("test"):
        folders.write(run, name, np.squeeze(tifffile.imread(found / f"{name}.tif")))
    run.facts["plan"] = {
        "patch": [256, 256],
        "batch": job.cfg.TRAIN.BATCH_SIZE,
        "epochs": budget.epochs,
        "weights": sum(weights.numel() for weights in job.workflow.model.parameters()),
    }
    run.changed(
        f"the budget ends the training, not {EPOCHS} epochs",
        "torchvision's meta registrations are left out",
    )
    run.write()


def recipe(run: running.Run, channels: int) -> dict[str, Any]:
    """Return the template's settings, with our folders and number of channels."""
    parts: dict[str, dict[str, Any]] = {
        part: {"PATH": str(run.data / part / "images"), "GT_PATH": str(run.data / part / "labels")}
        for part in ("train", "validation")
    }
    return {
        "SYSTEM": {"NUM_CPUS": run.cores},
        "PROBLEM": {
            "TYPE": "INSTANCE_SEG",
            "NDIM": "2D",
            "INSTANCE_SEG": {"DATA_CHANNELS": ["F", "C"]},
        },
        "DATA": {
            "PATCH_SIZE": (256, 256, channels),
            "TRAIN": {**parts["train"], "IN_MEMORY": True},
            "VAL": {**parts["validation"], "IN_MEMORY": True, "FROM_TRAIN": False},
            "TEST": {
                "PATH": str(run.data / "test" / "images"),
                "LOAD_GT": False,
                "PADDING": (32, 32),
            },
        },
        "AUGMENTOR": {"ENABLE": True, "RANDOM_ROT": True, "VFLIP": True, "HFLIP": True},
        "MODEL": {"ARCHITECTURE": "unet", "LOAD_CHECKPOINT": False},
        "TRAIN": {
            "ENABLE": True,
            "OPTIMIZER": "ADAMW",
            "LR": 1.0e-4,
            "BATCH_SIZE": 6,
            "EPOCHS": EPOCHS,
            "PATIENCE": PATIENCE,
        },
        "TEST": {"ENABLE": True, "AUGMENTATION": False, "FULL_IMG": False},
    }


if __name__ == "__main__":
    main()
