"""Train a job on more and more of its labels, and say whether more of them would help."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.data import Split, thinned
from medseg.errors import MedsegError
from medseg.evaluation import (
    LearningCurve,
    curve_png,
    learning_curve,
    read_table,
    write_json,
)
from medseg.files import written_whole
from medseg.jobs.extend import RESULT
from medseg.jobs.setup import Setup
from medseg.jobs.train import (
    check_before,
    judged_of,
    refuse_finished,
    tracked,
    train_split,
)

SEED = 0  # of the order in which groups are added; the same for all jobs on a data set
PICTURE = "curve.png"


@dataclass(frozen=True)
class Learned:
    """A learning curve and where its trainings are.

    Args:
        folder: The study's folder, with a run's folder a training set.
        run_id: Of the parent run in MLflow; None where tracking never answered.
        look: Where a person finds the runs.
        splits: The split of each training, the smallest training set first.
        judged: Which cases were judged, e.g. ``12 test cases``.
        curve: The scores.
    """

    folder: Path
    run_id: str | None
    look: str
    splits: tuple[Split, ...]
    judged: str
    curve: LearningCurve

    @property
    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "folder": str(self.folder),
            "mlflow_run": self.run_id,
            "mlflow_look": self.look,
            "judged": self.judged,
            "steps": [
                {
                    "groups": len({case.group for case in split.train}),
                    "cases": cases,
                    "score": asdict(score),
                }
                for split, (cases, score) in zip(
                    self.splits, self.curve.scores.items(), strict=True
                )
            ],
            "advice": self.curve.advice,
        }


def learn(setup: Setup, *, fractions: tuple[float, ...]) -> Learned:
    """Train a job on parts of its training cases, each within the next, and compare the scores.

    Validation and test cases stay the same, and so does what each training may take: the job's
    epochs, or the time budget. Trainings that have ended are not done again.

    Args:
        setup: The job and how to run it.
        fractions: Shares of the training groups.

    Raises:
        MedsegError: The shares come to one training set, a case cannot be judged, or the study has
            ended already.
    """
    try:
        splits = thinned(setup.split, fractions, seed=SEED)
    except ValueError as error:
        raise MedsegError(f"--fractions: {error}") from None
    if len(splits) < 2:
        groups = len({case.group for case in setup.split.train})
        raise MedsegError(
            f"--fractions: of {groups} training group(s) they are one and the same training set, "
            f"and a curve needs two"
        )
    folder = setup.folder(splits, "learning-curve")
    refuse_finished(folder, report=PICTURE)
    check_before(setup, splits[-1:])
    part, cases = judged_of(setup.split)
    folder.mkdir(parents=True, exist_ok=True)
    tags = {**setup.provenance(setup.split), "study": "learning-curve"}
    with tracked(setup, folder, tags=tags) as run:
        tables = {}
        for split in splits:
            of_step = folder / f"cases_{len(split.train)}"
            if not (of_step / RESULT).exists():
                setup.console.rule(f"{len(split.train)} of {len(setup.split.train)} training cases")
                train_split(setup, split, of_step, register_as="", parent=run.run_id)
            tables[len(split.train)] = read_table(of_step / "evaluation" / "records.parquet")
        curve = learning_curve(tables)
        judged = f"{len(cases)} {part} cases"
        result = Learned(folder, run.run_id, run.look(), tuple(splits), judged, curve)
        with written_whole(folder / PICTURE) as aside:
            aside.write_bytes(curve_png(curve, judged=judged))
        for number, score in curve.scores.items():
            if score.mean is not None:
                run.metrics({f"learning_curve/{score.label}": score.mean}, number)
        run.tags({"advice": curve.advice})
        run.file(folder / PICTURE)
    write_json(result.as_json, folder / RESULT)
    return result
