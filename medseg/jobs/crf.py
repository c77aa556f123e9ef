"""The part of a training that chooses a fully connected CRF on the validation cases, or none."""

from dataclasses import asdict, replace
from functools import partial

from medseg.data import Case
from medseg.errors import MedsegError
from medseg.geometry import Unit
from medseg.inference import CrfCase, CrfChoice, Model, choose_crf, crf_spacing
from medseg.jobs.fitting import Work


def with_chosen_crf(work: Work, model: Model) -> Model:
    """Return the model with the CRF that helps its probabilities most, or without any.

    The choice and its scores are printed, sent to the run and kept in the model's provenance.

    Raises:
        MedsegError: A validation case cannot be read or prepared.
    """
    device = Model(model.spec, model.network, work.how.device)
    cases = work.split.validation
    unit = work.card.reading().image(cases[0]).grid.unit
    choice = choose_crf([partial(_case, work, device, case, unit) for case in cases])
    work.console.print(_wording(choice, unit), markup=False)
    found = {"dice_without": choice.dice_without, "dice_with": choice.dice_with}
    work.run.metrics({f"validation/crf/{key}": value for key, value in found.items()}, 0)
    crf = None if choice.crf is None else {**choice.crf.to_dict(), "unit": str(unit)}
    provenance = {**model.spec.provenance, "crf": {**asdict(choice), "crf": crf}}
    return Model(replace(model.spec, crf=crf, provenance=provenance), model.network)


def _case(work: Work, model: Model, case: Case, unit: Unit) -> CrfCase:
    image, labels = work.card.reading().pair(case)
    classes = work.card.label_map().classes(labels.array, case.name)
    try:
        prepared, scores = model.prepared_probabilities(image.channels_first, image.grid)
        reference = model.preparation.prepare_labels(classes, image.grid)[0]
        spacing = crf_spacing(prepared.grid, unit)
    except ValueError as error:
        raise MedsegError(f"{case.name}: {error}") from None
    return CrfCase(scores.cpu().numpy(), prepared.tensor.numpy(), reference.numpy(), spacing)


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
