"""medseg on the same cases with the same budget; runs in medseg's environment.

python benchmarks/peers/ours.py DATA OUT --job JOB --budget 20m
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import running

from medseg.config import cases_of, read_job


def main() -> None:
    parser = running.parser(__doc__)
    parser.add_argument("--job", type=Path, required=True, help="that of export.py")
    given = parser.parse_args()
    running.begin(given)
    run = running.Run("medseg", ["medseg", "torch", "monai"], given)
    run.now("rest")
    trained = medseg(
        *("train", str(given.job), "--time-budget", f"{given.budget:g}s", "--device", "cpu"),
        *("--budget-clock", given.clock),
        *("--runs", str(given.out / "runs"), "--register", ""),
        *("--tracking-uri", f"sqlite:///{given.out}/mlflow.db"),
    )
    model = json.loads((Path(trained["folder"]) / "model" / "model.json").read_text())
    provenance = model["provenance"]
    if provenance["split_hash"] != run.cases["split_hash"]:
        raise SystemExit("the job has another split now than when its cases were exported")
    run.now("prediction")
    _, card, card_file = read_job(given.job)
    files = {case.name: case.images for case in cases_of(card, card_file, None)}
    images = [str(file) for name in run.names("test") for file in files[name]]
    medseg("predict", trained["folder"], *images, "-o", str(given.out / "predictions"))
    run.facts["steps"] = provenance["fit"]["steps"]
    seconds = run.facts["seconds"]
    seconds["training"] = round(provenance["fit"]["seconds"], 1)
    # Reading and hashing, thresholds, its own prediction and evaluation, the report, MLflow.
    seconds["rest"] = round(seconds["rest"] - seconds["training"], 1)
    run.facts["plan"] = {"network": model["network"]}
    run.write()


def medseg(*arguments: str) -> dict[str, Any]:
    """Run a command of medseg's and return what it prints as JSON."""
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    command = ["medseg", *arguments, "--json"]
    done = subprocess.run(command, env=quiet, stdout=subprocess.PIPE, text=True, check=True)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


if __name__ == "__main__":
    main()
