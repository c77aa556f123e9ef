"""Thresholds are chosen by what they find on validation cases."""

import numpy as np
import pytest

from medseg.geometry import Unit
from medseg.inference import ObjectCase, ObjectFinder, choose_thresholds, object_scores


def two_squares() -> tuple[np.ndarray, np.ndarray]:
    """Scores in which the bridge between two squares is an interior up to 0.55, and the squares."""
    reference = np.zeros((20, 30), np.int32)
    reference[5:15, 3:13], reference[5:15, 15:25] = 1, 2
    interior = np.where(reference > 0, 0.9, 0.05)
    interior[9:11, 13:15] = 0.55
    scores = np.stack([1 - interior - 0.01, interior, np.full(interior.shape, 0.01)])
    return scores.astype(np.float32), reference


def test_a_bridge_is_cut_by_a_higher_core():
    scores, reference = two_squares()
    finder = ObjectFinder(2, "border", {}, Unit.PX)
    assert finder.find(scores, (1.0, 1.0)).max() == 1, "they merge as the thresholds stand"

    choice = choose_thresholds(finder, [ObjectCase(scores, reference, (1.0, 1.0))])

    assert choice.best.thresholds["core"] > 0.55
    assert choice.best.average_precision == 1 > choice.before.average_precision
    assert {id(choice.before), id(choice.best)} <= {id(tried) for tried in choice.sweep}
    chosen = finder.with_thresholds(choice.best.thresholds)
    assert chosen.find(scores, (1.0, 1.0)).max() == 2
    assert ObjectFinder.from_dict(2, chosen.to_dict()).thresholds == chosen.thresholds


def test_what_is_no_better_does_not_replace_what_stands():
    reference = np.zeros((9, 9), np.int32)
    reference[2:7, 2:7] = 1
    scores = np.stack([reference == 0, reference > 0, reference < 0]).astype(np.float32)
    finder = ObjectFinder(2, "border", {}, Unit.PX)

    choice = choose_thresholds(finder, [ObjectCase(scores, reference, (1.0, 1.0))])

    assert choice.best is choice.before


def test_scores_leave_out_what_nobody_judged():
    reference = np.array([[1, 1, 0, -1, -1]])
    assert object_scores(reference, np.array([[4, 4, 0, 7, 7]])) == pytest.approx([1, 1])
    assert np.isnan(object_scores(reference * 0, reference * 0)).all()
