"""The parts of a training that concern a fully connected CRF: checked first, chosen last."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from medseg.config import Card, CrfSection, TrainJob
from medseg.data import Case, Split
from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.inference import CrfCase, CrfChoice, Model, choose_crf
from medseg.jobs.fitting import Work
from medseg.jobs.scored import scored_case


def check_crf(job: TrainJob, job_file: Path, card: Card, split: Split) -> None:
    """Find out, before a night of work and not after it, that the CRF cannot measure an image.

    One image of each part of the split is read.

    Raises:
        MedsegError: The CRF's lengths are physical and the pixel size of an image is not known, or
            a CRF is to be chosen and only some images have a pixel size.
    """
    crf = job.predict.crf
    if crf is False or (isinstance(crf, CrfSection) and crf.sigma_position.unit is Unit.PX):
        return
    parts = (split.train, split.validation, split.test)
    units = {
        part[0].name: card.reading().image(part[0]).grid.unit for part in parts if len(part) > 0
    }
    unknown = ", ".join(name for name, unit in units.items() if unit is Unit.PX)
    if isinstance(crf, CrfSection) and unknown:
        raise MedsegError(
            f"{job_file}: predict.crf.sigma_position is {crf.sigma_position}, but the pixel size "
            f"of {unknown} is not known\n  state it in the dataset card (pixel_size), or give "
            f"sigma_position and sigma_smooth in px"
        )
    if crf == "choose" and Unit.PX in units.values() and len(set(units.values())) > 1:
        raise MedsegError(
            f"{job_file}: predict.crf: choose measures all images alike, but the pixel size of "
            f"{unknown} is not known, that of others is\n  state it in the dataset card "
            f"(pixel_size), or write predict.crf: false"
        )


def with_chosen_crf(work: Work, model: Model) -> Model:
    """Return the model with the CRF that helps its probabilities most, or without any.

    The choice and its scores are printed, sent to the run and kept in the model's provenance. If
    none can be chosen, the model has none and the reason is printed and kept: a training is never
    lost over it.
    """
    device = Model(model.spec, model.network, work.how.device)
    cases = work.split.validation
    unit = work.card.reading().image(cases[0]).grid.unit
    try:
        choice = choose_crf([partial(_case, work, device, case, unit) for case in cases])
    except (MedsegError, ValueError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        work.console.print(f"no CRF: {reason}", style="yellow", markup=False)
        provenance = {**model.spec.provenance, "crf": {"crf": None, "reason": reason}}
        return Model(replace(model.spec, provenance=provenance), model.network)
    work.console.print(_wording(choice, unit), markup=False)
    found = {"dice_without": choice.dice_without, "dice_with": choice.dice_with}
    work.run.metrics({f"validation/crf/{key}": value for key, value in found.items()}, 0)
    crf = None if choice.crf is None else {**choice.crf.to_dict(), "unit": str(unit)}
    provenance = {**model.spec.provenance, "crf": {**asdict(choice), "crf": crf}}
    return Model(replace(model.spec, crf=crf, provenance=provenance), model.network)


def _case(work: Work, model: Model, case: Case, unit: Unit) -> CrfCase:
    seen = scored_case(work, model, case, unit)
    return CrfCase(seen.scores, seen.image, seen.reference, seen.spacing)


def _wording(choice: CrfChoice, unit: Unit) -> str:
    scores = (
        f"mean Dice on parts of {choice.cases} validation cases {choice.dice_without:.4f} without, "
        f"{choice.dice_with:.4f} with the best of the candidates"
    )
    if choice.crf is None:
        return f"no CRF: {scores}"
    crf = choice.crf
    return (
        f"CRF chosen (weight {crf.bilateral_weight:g}, position {crf.sigma_position:g} {unit}, "
        f"intensity {crf.sigma_intensity}): {scores}"
    )
