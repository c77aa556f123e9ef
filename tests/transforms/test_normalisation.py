import numpy as np
import pytest
import torch

from medseg.transforms import NORMALISATIONS, CtStatistics, foreground_statistics


def test_percentiles_become_minus_one_and_one_and_what_lies_beyond_is_clipped():
    image = torch.arange(101.0).reshape(1, 101, 1)
    scaled = NORMALISATIONS.build("percentile", lower=10, upper=90)(image)[0, :, 0]

    assert scaled[[10, 50, 90]].tolist() == pytest.approx([-1, 0, 1], abs=1e-6)
    assert (scaled.min(), scaled.max()) == pytest.approx((-1, 1), abs=1e-6)


def test_a_zscore_forgets_gain_and_offset_of_every_channel():
    image = torch.randn(2, 20, 20, generator=torch.Generator().manual_seed(0))
    changed = image * torch.tensor([3.0, 0.1])[:, None, None] + 7
    normalise = NORMALISATIONS.build("zscore")

    torch.testing.assert_close(normalise(changed), normalise(image), rtol=0, atol=1e-4)
    assert normalise(image).mean((1, 2)).tolist() == pytest.approx([0, 0], abs=1e-5)


# MONAI warns of the division by zero that it then avoids.
@pytest.mark.filterwarnings("ignore:Divide by zero")
@pytest.mark.parametrize("name", ["percentile", "zscore"])
def test_a_constant_image_stays_finite(name):
    assert torch.isfinite(NORMALISATIONS.build(name)(torch.full((1, 6, 6), 3.0))).all()


def test_ct_clips_in_hounsfield_units_before_it_scales():
    normalise = NORMALISATIONS.build("ct", lower=-100.0, upper=200.0, mean=50.0, std=25.0)
    image = torch.tensor([[-1000.0, -100.0, 50.0, 75.0, 3000.0]])

    assert normalise(image)[0].tolist() == pytest.approx([-6, -6, 0, 1, 6], abs=1e-5)


def test_a_ct_that_was_not_measured_is_refused_until_it_is():
    normalise = NORMALISATIONS.build("ct")
    assert normalise.needs_statistics
    with pytest.raises(ValueError, match="not been measured"):
        normalise(torch.zeros(1, 3))

    measured = normalise.with_statistics(CtStatistics(-100.0, 200.0, 50.0, 25.0))
    assert not measured.needs_statistics
    assert measured(torch.tensor([[75.0]])).item() == pytest.approx(1)


def test_half_a_ct_setting_is_refused():
    with pytest.raises(ValueError, match=r"normalisation\.upper: set all"):
        NORMALISATIONS.build("ct", lower=-100.0)


def test_statistics_count_labelled_voxels_only_and_every_case_alike():
    def case(value, voxels):
        image, labels = np.full((1, 10, 10), -1000.0), np.zeros((10, 10), int)
        image.reshape(-1)[:voxels], labels.reshape(-1)[:voxels] = value, 2
        labels[9, 9] = -1
        return image, labels

    found = foreground_statistics([case(10.0, 80), case(30.0, 5)], per_case=100)

    assert (found.lower, found.upper) == (10, 30)
    assert found.mean == pytest.approx(20)
    assert found.std == pytest.approx(10)


def test_statistics_find_the_distribution_they_were_drawn_from():
    rng = np.random.default_rng(0)
    cases = [(rng.normal(40, 15, (1, 40, 40)), np.ones((40, 40), int)) for _ in range(5)]
    found = foreground_statistics(iter(cases), seed=1)

    assert found.mean == pytest.approx(40, abs=1)
    assert found.std == pytest.approx(15, abs=1)
    assert found.lower == pytest.approx(40 - 2.576 * 15, abs=4)


def test_statistics_without_foreground_are_refused():
    with pytest.raises(ValueError, match="no case has a labelled voxel"):
        foreground_statistics([(np.zeros((1, 4, 4)), np.zeros((4, 4), int))])
