"""The part of a training that concerns objects: their thresholds, tuned last."""

from dataclasses import asdict, replace

from medseg.data import Case
from medseg.inference import Model, ObjectCase, ObjectFinder, choose_thresholds
from medseg.jobs.fitting import Work
from medseg.jobs.scored import scored_case


def with_tuned_thresholds(work: Work, model: Model) -> Model:
    """Return the model with the thresholds that find the validation cases' objects best.

    The choice and all that was tried are printed, sent to the run and kept in the model's
    provenance.
    """
    finder = model.finder
    if finder is None:
        raise ValueError("a model of classes has no thresholds")
    device = Model(model.spec, model.network, work.how.device)
    choice = choose_thresholds(
        finder, [_case(work, device, finder, case) for case in work.split.validation]
    )
    before, best = choice.before, choice.best
    chosen = ", ".join(f"{name} {value:g}" for name, value in best.thresholds.items())
    work.console.print(
        f"thresholds chosen ({chosen}): PQ {best.panoptic_quality:.4f}, before "
        f"{before.panoptic_quality:.4f}; AP {best.average_precision:.4f}, before "
        f"{before.average_precision:.4f}, on {len(work.split.validation)} validation cases",
        markup=False,
    )
    scores = {
        "panoptic_quality": best.panoptic_quality,
        "panoptic_quality_before": before.panoptic_quality,
        "average_precision": best.average_precision,
        "average_precision_before": before.average_precision,
    }
    work.run.metrics({f"validation/thresholds/{key}": v for key, v in scores.items()}, 0)
    provenance = {**model.spec.provenance, "thresholds": asdict(choice)}
    objects = finder.with_thresholds(best.thresholds).to_dict()
    return Model(replace(model.spec, objects=objects, provenance=provenance), model.network)


def _case(work: Work, model: Model, finder: ObjectFinder, case: Case) -> ObjectCase:
    seen = scored_case(work, model, case, finder.unit)
    return ObjectCase(seen.scores, seen.reference, seen.spacing)
