"""One LightningModule for every network: a loss on patches, the score on whole images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from medseg.inference import probabilities_of, sliding_window

Loss = Callable[[Any, Tensor], Tensor]


class SegmentationModule(pl.LightningModule):
    """Trains a network on patches and validates it on whole images.

    The Dice that chooses the checkpoint is computed on each validation image as a whole, with the
    sliding window that will be used later, and averaged over the images: not over patches, whose
    Dice depends on where they were cut.

    Args:
        network: Gives logits, or with deep supervision a list of them while training.
        loss: Takes the network's output and the labels (batch, 1, *spatial).
        structures: Class index of each structure, background left out.
        window_voxels: Window of the validation.
        overlap: Overlap of its windows.
        neighbours: Planes on each side that the network sees as channels, where it sees stacks
            plane by plane.
        optimiser: ``adamw``, or ``sgd`` with Nesterov momentum.
        learning_rate: At the start of the schedule.
        weight_decay: Of all weights.
        momentum: Of ``sgd``.

    Attributes:
        score: Which of the validation's scores chooses the checkpoint.
        score_name: What people call it.
    """

    score = "dice"
    score_name = "Dice"

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        *,
        structures: Mapping[str, int],
        window_voxels: Sequence[int],
        overlap: float = 0.25,
        neighbours: int = 0,
        optimiser: Literal["adamw", "sgd"] = "adamw",
        learning_rate: float = 1e-3,
        weight_decay: float = 3e-5,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.structures = dict(structures)
        self.window_voxels = tuple(window_voxels)
        self.overlap = overlap
        self.neighbours = neighbours
        self.optimiser = optimiser
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.momentum = momentum
        self._judged: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        """Return the network's logits."""
        logits: Tensor = self.network(image)
        return logits

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch of patches."""
        return self.loss(self.network(batch["image"]), batch["label"])

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Judge one whole image."""
        self._judged.append(self.judge(batch))

    def on_validation_epoch_end(self) -> None:
        """Log the scores of all images."""
        for name, value in self.summary(torch.stack(self._judged)).items():
            self.log(f"validation/{name}", value)
        self._judged.clear()

    def judge(self, batch: Mapping[str, Any]) -> Tensor:
        """Return hits, false alarms and misses of each structure in one whole image."""
        return self.count(self.classes(batch["image"][0]), batch["label"][0, 0])

    def summary(self, judged: Tensor) -> dict[str, float]:
        """Return Dice and IoU: the mean over images for each structure, and over structures."""
        return scores(judged, list(self.structures))

    def classes(self, image: Tensor) -> Tensor:
        """Return the class of each voxel of a whole prepared image (channels, *spatial)."""
        rows = sliding_window(
            probabilities_of(self.network),
            image,
            window=self.window_voxels,
            overlap=self.overlap,
            neighbours=self.neighbours,
        )
        return torch.cat([part.argmax(0) for part in rows])

    def count(self, classes: Tensor, label: Tensor) -> Tensor:
        """Return hits, false alarms and misses of each structure, (structures, 3)."""
        judged = label >= 0
        counts = []
        for index in self.structures.values():
            here, there = (classes == index) & judged, label == index
            hits = (here & there).sum()
            counts.append(torch.stack([hits, here.sum() - hits, there.sum() - hits]))
        return torch.stack(counts)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser; :class:`Schedule` moves its learning rate."""
        if self.optimiser == "sgd":
            return torch.optim.SGD(
                self.network.parameters(),
                lr=self.learning_rate,
                momentum=self.momentum,
                nesterov=self.momentum > 0,
                weight_decay=self.weight_decay,
            )
        return torch.optim.AdamW(
            self.network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )


def scores(counts: Tensor, structures: Sequence[str]) -> dict[str, float]:
    """Return mean Dice and IoU from the counts of some images.

    Args:
        counts: Hits, false alarms and misses, (images, structures, 3).
        structures: Names of the structures.

    Returns:
        ``dice/NAME`` and ``iou/NAME`` for each structure, the mean over the images in which it
        occurs or is predicted, and ``dice`` and ``iou``, the mean over the structures. A structure
        that no image has and none predicts has no score.
    """
    result: dict[str, float] = {}
    hits, false, missed = counts.double().unbind(-1)
    for metric, value in {
        "dice": 2 * hits / (2 * hits + false + missed),
        "iou": hits / (hits + false + missed),
    }.items():
        means = value.nanmean(0)
        result |= {
            f"{metric}/{name}": float(mean)
            for name, mean in zip(structures, means, strict=True)
            if not torch.isnan(mean)
        }
        result[metric] = float(means.nanmean()) if not means.isnan().all() else 0.0
    return result
