"""What a training will need, worked out by hand from given steps."""

import pytest

from medseg.doctor.forecast import SAFETY, Forecast, duration, gigabytes

GB = 1_000_000_000


def forecast(**changed) -> Forecast:
    given = {
        "base_bytes": GB, "data_bytes": 2 * GB, "rise_bytes": 4 * GB, "available_bytes": 100 * GB,
        "on_gpu": False, "preparing_seconds": 10.0, "step_seconds": 0.5, "steps": 100,
        "validation_seconds": 3.0, "validations": 4, "prediction_seconds": 8.0,
    }  # fmt: skip
    return Forecast(**{**given, **changed})


def test_the_parts_add_up():
    assert forecast().seconds == 10 + 100 * 0.5 + 4 * 3 + 8
    assert forecast().peak_bytes == pytest.approx(GB + 2 * GB + SAFETY * 4 * GB)
    assert forecast(on_gpu=True).peak_bytes == pytest.approx(GB + SAFETY * 4 * GB), (
        "the cases lie in the computer's memory"
    )


@pytest.mark.parametrize(
    ("available", "severities"),
    [(100, []), (10.1, []), (9.9, ["warning"]), (8.1, ["warning"]), (7.9, ["error"])],
)
def test_memory_is_tight_from_four_fifths_and_wanting_beyond_all(available, severities):
    findings = list(forecast(available_bytes=int(available * GB)).findings())

    assert [finding.severity for finding in findings] == severities


def test_the_remedy_is_for_what_needs_the_memory():
    (step,) = forecast(available_bytes=GB).findings()
    (data,) = forecast(available_bytes=GB, data_bytes=50 * GB).findings()

    assert "train.batch" in step.remedy
    assert "data.spacing" in data.remedy


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (59, "59 s"), (61, "0:01:01"), (7325, "2:02:05")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_sizes_are_for_people():
    assert (gigabytes(1.25e9), gigabytes(3e6)) == ("1.2 GB", "3 MB")
