"""nnU-Net v2 on what export.py wrote for it; runs in nnU-Net's own environment.

    ENV/bin/python benchmarks/peers/nnunet.py DATA OUT --configuration 3d_fullres --budget 20m

Its fingerprint, plan, preprocessing, trainer and predictor are used as they are. Only the end of
training is another: nnU-Net trains 1000 epochs of 250 steps, which takes days here, so the budget
takes their place, and the learning rate falls by the same curve over the budget.
"""

import os
import shutil
from typing import Any

import running

DATA_SET = 1


def main() -> None:
    parser = running.parser(__doc__)
    parser.add_argument("--configuration", required=True, choices=("2d", "3d_fullres"))
    parser.add_argument("--planner-gb", type=float, help="GPU memory to plan for; default: its own")
    given = parser.parse_args()
    running.begin(given)
    os.environ |= {
        "nnUNet_raw": str(given.data / "nnUNet_raw"),
        "nnUNet_preprocessed": str(given.out / "preprocessed"),
        "nnUNet_results": str(given.out / "results"),
        "nnUNet_n_proc_DA": str(given.cores),
        "nnUNet_def_n_proc": str(given.cores),
    }
    run = running.Run("nnU-Net", ["nnunetv2", "torch"], given)
    run.now("preprocessing")
    trainer = prepared(run, given.configuration, given.planner_gb)
    if given.clock == "cpu":  # then patches are made by the process that is measured
        os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 (nnU-Net spells it so)
    trainer.on_train_start()
    run.now("training")
    train(run, trainer)
    run.now("prediction")
    predict(run, trainer)
    run.facts["plan"] = {
        "configuration": given.configuration,
        "patch": [int(size) for size in trainer.configuration_manager.patch_size],
        "batch": trainer.configuration_manager.batch_size,
        "weights": sum(weights.numel() for weights in trainer.network.parameters()),
    }
    run.changed("the learning rate falls over the budget, not over 1000 epochs of 250 steps")
    if given.planner_gb:
        run.changed(f"planned for {given.planner_gb:g} GB of GPU memory")
    run.write()


def prepared(run: running.Run, configuration: str, planner_gb: float | None) -> Any:
    """Plan and preprocess, and return the trainer on our split."""
    import torch
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.set_num_threads(run.cores)
    api.extract_fingerprints([DATA_SET], num_processes=run.cores, verbose=False)
    plans = api.plan_experiments([DATA_SET], gpu_memory_target_in_gb=planner_gb)
    api.preprocess([DATA_SET], plans, (configuration,), (run.cores,), show_progress_bar=False)
    (folder,) = (run.out / "preprocessed").iterdir()
    shutil.copy(run.data / "splits_final.json", folder)
    return get_trainer_from_args(
        str(DATA_SET), configuration, 0, plans_identifier=plans, device=torch.device("cpu")
    )


def train(run: running.Run, trainer: Any) -> None:
    """Train as ``nnUNetTrainer.run_training`` does, until the budget is used up."""
    import torch

    group = trainer.optimizer.param_groups[0]
    steps = 0
    while run.used < 1:
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        outputs = []
        while len(outputs) < trainer.num_iterations_per_epoch and run.used < 1:
            # The poly curve of PolyLRScheduler, with time for epochs.
            group["lr"] = trainer.initial_lr * (1 - run.used) ** 0.9
            outputs.append(trainer.train_step(next(trainer.dataloader_train)))
        steps += len(outputs)
        if run.used >= 1:
            break
        trainer.on_train_epoch_end(outputs)
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            batches = range(trainer.num_val_iterations_per_epoch)
            judged = [trainer.validation_step(next(trainer.dataloader_val)) for _ in batches]
            trainer.on_validation_epoch_end(judged)
        trainer.on_epoch_end()
    run.facts["steps"] = steps
    trainer.on_train_end()


def predict(run: running.Run, trainer: Any) -> None:
    """Predict the test images with the last weights, mirrored as nnU-Net does by default."""
    import numpy as np
    import SimpleITK
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    (folder,) = (run.data / "nnUNet_raw").iterdir()
    classes, suffix = run.out / "classes", trainer.dataset_json["file_ending"]
    classes.mkdir()
    predictor.predict_from_files_sequential(str(folder / "imagesTs"), str(classes))
    values = np.array(run.cases["file_values"], np.uint8)
    for name in run.names("test"):
        image = SimpleITK.ReadImage(str(classes / f"{name}{suffix}"))
        labels = SimpleITK.GetImageFromArray(values[SimpleITK.GetArrayFromImage(image)])
        labels.CopyInformation(image)
        SimpleITK.WriteImage(labels, str(run.out / "predictions" / f"{name}{suffix}"))


if __name__ == "__main__":
    main()
