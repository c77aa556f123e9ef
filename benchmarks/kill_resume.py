"""Kill a training on real images at random moments, run the same command again, and compare.

    python benchmarks/kill_resume.py --kills 20             # needs MEDSEG_DATA
    python benchmarks/kill_resume.py --kills 20 --workers 2

The training is a small U-Net with dropout on the membranes of ISBI 2012, in fp32 on the CPU. It is
run once without a kill. Then the same job is started, killed (SIGKILL) at a random moment after its
first new checkpoint, and started again by the same command, over and over. After each kill a
checkpoint must be whole; in the end the weights must be those of the run that was never killed, bit
for bit, in one MLflow run with each step once.
"""

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CARDS = Path(__file__).parents[1] / "configs/data"
JOB = """\
data: {{dataset: {card}, patch_voxels: [64, 64]}}
network: {{name: unet, channels: [4, 8, 16], dropout: 0.2}}
train: {{epochs: {epochs}, iterations_per_epoch: 10, validate_every: 4, batch: 2, ema: 0.95}}
predict: {{window_voxels: [256, 256]}}
metrics: [dice]
"""
EVERY = "0.01s"  # a checkpoint nearly every step, so that many a kill meets one half written


@dataclass(frozen=True)
class Killed:
    """What a kill left.

    Args:
        step: Of the newest whole checkpoint.
        seconds: After the first new checkpoint of this part.
        used: Its name.
        half_written: Whether a checkpoint was being written.
    """

    step: int
    seconds: float
    used: str
    half_written: bool


class Training:
    """One training by the command, in a folder of its own."""

    def __init__(self, folder: Path, *, workers: int, epochs: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.store = f"sqlite:///{folder / 'mlflow.db'}"
        job = folder / "job.yaml"
        job.write_text(JOB.format(card=CARDS / "isbi2012_em.yaml", epochs=epochs))
        self.command = [sys.executable, "-c", "from medseg.cli import main; main()", "train", job]
        self.command += ["--data-root", os.environ["MEDSEG_DATA"], "--runs", folder / "runs"]
        self.command += ["--device", "cpu", "--precision", "fp32", "--workers", str(workers)]
        self.command += ["--checkpoint-every", EVERY, "--tracking-uri", self.store]

    @property
    def run(self) -> Path:
        """The run's folder."""
        (found,) = (self.folder / "runs").iterdir()
        return found

    def start(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "log.txt").open("ab")
        return subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)

    def finish(self) -> None:
        code = self.start().wait()
        if code:
            raise SystemExit(f"{self.folder / 'log.txt'}: exit code {code}")

    def saved(self) -> float:
        """When a checkpoint was last written; 0 for never."""
        last = list((self.folder / "runs").glob("*/checkpoints/last.ckpt"))
        return last[0].stat().st_mtime if last else 0.0

    def kill_after(self, seconds: float) -> Killed | None:
        """Kill it so long after its first new checkpoint; None if it had ended by then."""
        before = self.saved()
        process = self.start()
        while self.saved() == before:
            if process.poll() is not None:
                return None
            time.sleep(0.01)
        time.sleep(seconds)
        process.kill()
        if process.wait() == 0:
            return None
        return self._look(seconds)

    def _look(self, seconds: float) -> Killed:
        from rich.console import Console

        from medseg.training.resume import newest_checkpoint

        folder = self.run / "checkpoints"
        found = newest_checkpoint(folder, Console(stderr=True))
        if found is None:
            raise SystemExit(f"{folder}: no checkpoint is left")
        half_written = any(folder.glob(".*.part"))
        return Killed(found[1]["global_step"], seconds, found[0].name, half_written)

    def weights(self) -> str:
        file = self.run / "model/weights.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values of each curve in MLflow, but for how long things took."""
        from mlflow import MlflowClient

        client = MlflowClient(self.store)
        runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
        if len(runs) != 1 or runs[0].info.status != "FINISHED":
            raise SystemExit(f"{self.store}: {[run.info.status for run in runs]} in MLflow")
        run_id = runs[0].info.run_id
        return {
            key: sorted((p.step, p.value) for p in client.get_metric_history(run_id, key))
            for key in runs[0].data.metrics
            if key not in ("train/idle_percent", "fit/idle_percent", "fit/seconds", "fit/resumed")
        }


def compare(folder: Path, *, kills: int, workers: int, epochs: int, seed: int) -> list[Killed]:
    """Run both trainings and return what each kill left.

    Raises:
        SystemExit: They are not equal.
    """
    draw = random.Random(seed)
    whole = Training(folder / "whole", workers=workers, epochs=epochs)
    whole.finish()
    written = [f.stat().st_mtime for f in (whole.run / "checkpoints").glob("*.ckpt")]
    began = (whole.run / "run.json").stat().st_mtime
    lasted = max(written) - began
    killed = Training(folder / "killed", workers=workers, epochs=epochs)
    left: list[Killed] = []
    while len(left) < kills:
        one = killed.kill_after(draw.uniform(0, 1.2 * lasted / kills))
        if one is None:
            print(f"it had ended after {len(left)} kills", file=sys.stderr)
            break
        left.append(one)
        print(f"kill {len(left)}: {one}", file=sys.stderr, flush=True)
    if not (killed.run / "result.json").exists():
        killed.finish()
    if killed.weights() != whole.weights():
        raise SystemExit("the weights differ")
    if killed.curves() != whole.curves():
        raise SystemExit("the curves in MLflow differ")
    return left


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill_resume-"))
    left = compare(folder, **vars(given))
    shutil.rmtree(folder)
    steps = [one.step for one in left]
    print(
        f"| {given.workers} | {10 * given.epochs} | {len(left)} | {min(steps)} to {max(steps)} "
        f"| {sum(one.half_written for one in left)} "
        f"| {sum(one.used != 'last.ckpt' for one in left)} | equal | one run, equal curves |"
    )


if __name__ == "__main__":
    main()
