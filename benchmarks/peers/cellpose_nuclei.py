"""Cellpose 3 on what export.py wrote as folders; runs in Cellpose's own environment.

    ENV/bin/python benchmarks/peers/cellpose_nuclei.py DATA OUT --budget 20m

Trains from scratch with what its command line takes by default, and the mean diameter of 17 pixels
of its own nuclei model; then its size model, which is how it meets images whose nuclei differ in
size. Images are grey to it. Its schedule must know the number of epochs, so a few steps are timed
first, on a network that is thrown away.
"""

import math
from typing import Any

import folders
import numpy as np
import running

DIAMETER = 17.0  # of Cellpose's nuclei model; its others have 30
RECIPE: dict[str, Any] = {"learning_rate": 0.2, "weight_decay": 1e-5, "SGD": True, "batch_size": 8}
GREY = [0, 0]
EPOCHS = 500  # of its command line
FEWEST_OBJECTS = 5  # in a training image; its default
WARMING, TIMED = 1, 4  # steps
SIZE_EPOCHS = 2  # of 10: these passes over whole images would take longer than the training


def main() -> None:
    given = running.parser(__doc__).parse_args()
    running.begin(given)
    run = running.Run("Cellpose", ["cellpose", "torch"], given)
    import torch
    from cellpose import dynamics, io, models, train

    torch.set_num_threads(given.cores)
    torch.manual_seed(7)
    io.logger_setup()

    def network() -> Any:
        return models.CellposeModel(gpu=False, pretrained_model=None, diam_mean=DIAMETER)

    run.now("preprocessing")
    seen, held = folders.read(run, "train"), folders.read(run, "validation")
    drawn, judged = (
        dynamics.labels_to_flows(folders.read(run, part, "labels"), device=torch.device("cpu"))
        for part in ("train", "validation")
    )
    how = {"channels": GREY, "save_path": given.out, **RECIPE}

    def seconds(steps: int) -> float:
        before = run.used
        train.train_seg(
            network().net,
            seen,
            drawn,
            n_epochs=1,
            nimg_per_epoch=steps * RECIPE["batch_size"],
            model_name="timed",
            **how,
        )
        return (run.used - before) * run.budget

    step = (seconds(WARMING + TIMED) - seconds(WARMING)) / TIMED
    used = [flow for flow in drawn if len(np.unique(flow[0])) > FEWEST_OBJECTS]
    steps = math.ceil(len(used) / RECIPE["batch_size"])
    epochs = min(EPOCHS, max(1, int(given.budget / (step * steps))))
    model = network()
    weights = sum(part.numel() for part in model.net.parameters())
    run.now("training")
    file = train.train_seg(
        model.net,
        seen,
        drawn,
        test_data=held,
        test_labels=judged,
        n_epochs=epochs,
        model_name="cellpose",
        **how,
    )[0]
    run.now("tuning")
    model = models.CellposeModel(gpu=False, pretrained_model=str(file))
    train.train_size(
        model.net,
        str(file),
        seen,
        drawn,
        test_data=held,
        test_labels=judged,
        channels=GREY,
        batch_size=RECIPE["batch_size"],
        n_epochs=SIZE_EPOCHS,
    )
    sizes = models.SizeModel(model, pretrained_size=f"{file}_size.npy")
    run.now("prediction")
    for name, image in zip(run.names("test"), folders.read(run, "test"), strict=True):
        diameter, _ = sizes.eval(image, channels=GREY)
        found = model.eval(image, channels=GREY, diameter=diameter)[0]
        folders.write(run, name, found)
    run.facts |= {
        "steps": epochs * steps,
        "plan": {
            "patch": [224, 224],
            "batch": RECIPE["batch_size"],
            "epochs": epochs,
            "weights": weights,
        },
    }
    run.changed(
        f"as many epochs as fit into the budget: {epochs}, not {EPOCHS}",
        f"the size model learns over {SIZE_EPOCHS} epochs, not 10",
    )
    run.write()


if __name__ == "__main__":
    main()
