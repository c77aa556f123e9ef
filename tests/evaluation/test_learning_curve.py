"""What a learning curve advises, on scores made up so that the answer is known."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as Picture

from medseg.evaluation import Record, curve_png, learning_curve
from medseg.geometry import Unit


def records(values, *, metric: str = "dice", unit: str = "1", structure: str = "cell"):
    return [
        Record(
            case=f"c{number}",
            group=f"g{number}",
            structure=structure,
            metric=metric,
            value=float(value),
            unit=unit,
            status="ok",
            definition="made/v1",
            spacing=(1.0, 1.0),
            spacing_unit=Unit.UM,
            version="1",
        )
        for number, value in enumerate(values)
    ]


def spread(mean: float, cases: int = 8) -> np.ndarray:
    """Cases a little around a mean."""
    return mean + np.linspace(-0.02, 0.02, cases)


def advice_of(*means: float, noise: float = 0.0, cases: int = 8, **how) -> str:
    sway = noise * (-1.0) ** np.arange(cases)  # to one side and back, so that the means stay
    tables = {
        4 * 2**n: records(spread(mean, cases) + sway * (-1) ** n, **how)
        for n, mean in enumerate(means)
    }
    return learning_curve(tables).advice


def test_a_rise_that_the_interval_holds_is_worth_more_labels():
    advice = advice_of(0.5, 0.6, 0.7, noise=0.01)

    assert advice.startswith("More labels would help: from 8 to 16 training cases, Dice went from")
    assert "Dice went from 0.600 to 0.700 (95 % interval of the change +0." in advice
    assert advice.endswith("8 cases).")


def test_no_rise_and_a_narrow_interval_say_that_labels_are_not_what_limits():
    advice = advice_of(0.5, 0.8, 0.8005, noise=0.0005)

    assert advice.startswith("Labels are no longer what limits: from 8 to 16 training cases")
    assert "less than 1 % better" in advice


def test_a_wide_interval_says_that_nobody_can_tell():
    advice = advice_of(0.6, 0.61, noise=0.1)

    assert advice.startswith("These cases cannot tell whether more labels would help: from 4 to 8")


def test_two_groups_say_nothing():
    advice = advice_of(0.5, 0.9, cases=2)

    assert advice.startswith("These 2 groups are too few to tell whether more labels would help")
    assert "Dice went from 0.500 to 0.900" in advice


@pytest.mark.parametrize(
    ("means", "expected"),
    [((8, 4), "More labels would help"), ((4, 4), "Labels are no longer"), ((4, 5), "Labels are")],
)
def test_a_distance_gets_better_by_falling(means, expected):
    how = {"metric": "hd95", "unit": "um", "noise": 0.001}
    assert advice_of(*map(float, means), **how).startswith(expected)


def test_the_curve_is_of_all_structures_where_several_are_and_of_the_first_metric():
    def both(one: float, other: float):
        first = records([one] * 4, structure="a") + records([other] * 4, structure="b")
        return first + records([9.0] * 4, metric="hd95", unit="um", structure="a")

    curve = learning_curve({2: both(0.4, 0.6), 5: both(0.7, 0.9)})

    assert {cases: score.mean for cases, score in curve.scores.items()} == {
        2: pytest.approx(0.5),
        5: pytest.approx(0.8),
    }
    assert curve.last.structure == "all structures"
    assert curve.last.difference == pytest.approx(0.3)


def test_one_training_is_no_curve():
    with pytest.raises(ValueError, match="two trainings or more, got 1"):
        learning_curve({4: records([0.5])})


def test_the_picture_is_a_picture():
    curve = learning_curve({4: records(spread(0.5)), 8: records(spread(0.7))})

    with Picture.open(BytesIO(curve_png(curve, judged="8 test cases"))) as picture:
        assert picture.size == (750, 510)
        colours = np.unique(np.array(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 20
