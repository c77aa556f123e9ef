"""StarDist on what export.py wrote as folders; runs in StarDist's own environment.

    ENV/bin/python benchmarks/peers/stardist_nuclei.py DATA OUT --budget 20m

The recipe is that of its 2D training example: 32 rays on a grid of 2, images between their 1st and
99.8th percentile, patches of 256, flips, turns and intensities; the weights with the best
validation loss; thresholds chosen on the validation images. 400 epochs take longer than the budget,
which therefore ends the training.
"""

from typing import Any

import folders
import numpy as np
import running
from numpy.typing import NDArray

Array = NDArray[Any]


def main() -> None:
    given = running.parser(__doc__).parse_args()
    running.begin(given)
    run = running.Run("StarDist", ["stardist", "tensorflow-cpu", "keras"], given)
    import keras
    import tensorflow as tf
    from csbdeep.utils import normalize
    from stardist import fill_label_holes
    from stardist.models import Config2D, StarDist2D

    tf.config.threading.set_intra_op_parallelism_threads(given.cores)
    tf.config.threading.set_inter_op_parallelism_threads(given.cores)

    class Budget(keras.callbacks.Callback):  # type: ignore[misc]
        steps = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            self.model.stop_training = run.used >= 1

    def normalized(image: Array) -> Array:
        return normalize(image, 1, 99.8, axis=(0, 1))

    run.now("preprocessing")
    seen, held = (
        [normalized(image) for image in folders.read(run, part)] for part in ("train", "validation")
    )
    drawn, judged = (
        [fill_label_holes(label) for label in folders.read(run, part, "labels")]
        for part in ("train", "validation")
    )
    channels = seen[0].shape[-1] if seen[0].ndim == 3 else 1
    config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=channels, train_tensorboard=False)
    model = StarDist2D(config, name="stardist", basedir=str(given.out))
    model.prepare_for_training()
    budget = Budget()
    model.callbacks.append(budget)
    chance = np.random.default_rng(7)
    run.now("training")
    model.train(
        seen,
        drawn,
        validation_data=(held, judged),
        augmenter=lambda image, label: augmented(image, label, chance),
        seed=7,
    )
    run.now("tuning")
    chosen = model.optimize_thresholds(held, judged)
    run.now("prediction")
    for name, image in zip(run.names("test"), folders.read(run, "test"), strict=True):
        found, _ = model.predict_instances(normalized(image))
        folders.write(run, name, found)
    run.facts |= {
        "steps": budget.steps,
        "plan": {
            "patch": list(config.train_patch_size),
            "batch": config.train_batch_size,
            "weights": model.keras_model.count_params(),
            "thresholds": {name: float(value) for name, value in chosen.items()},
        },
    }
    run.changed("the budget ends the training, not 400 epochs of 100 steps")
    run.write()


def augmented(image: Array, label: Array, chance: np.random.Generator) -> tuple[Array, Array]:
    """Flip, turn by quarters, and change brightness, contrast and noise as the example does."""
    turns = int(chance.integers(4))
    image, label = np.rot90(image, turns), np.rot90(label, turns)
    if chance.random() < 0.5:
        image, label = image[::-1], label[::-1]
    image = image * chance.uniform(0.6, 2) + chance.uniform(-0.2, 0.2)
    noise = 0.02 * chance.uniform(0, 1)
    return image + noise * chance.normal(size=image.shape), label


if __name__ == "__main__":
    main()
