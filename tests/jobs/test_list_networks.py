"""The list of networks, and what they cost."""

import time

import pytest
from rich.console import Console

from medseg.errors import MedsegError
from medseg.jobs.costs import costs
from medseg.jobs.networks import networks, short
from medseg.networks import NETWORKS

QUIET = Console(quiet=True)


def test_every_network_is_listed_with_its_parameters_at_once():
    began = time.process_time()
    listed = {one.name: one for one in networks().networks}
    assert time.process_time() - began < 5
    assert list(listed) == list(NETWORKS)
    assert listed["msd"].parameters == (45_754, 136_654)


def test_networks_are_chosen_by_name_with_channels_and_classes():
    (unet, msd) = networks(["unet", "msd", "unet"], channels=3, classes=21).networks
    assert (unet.name, msd.name) == ("unet", "msd")
    # Layer i has 3 x 3 weights for each of 3 + i planes and a bias; the last one sees 103 planes.
    assert msd.parameters[0] == 9 * (100 * 3 + 100 * 99 // 2) + 100 + (103 + 1) * 21
    with pytest.raises(MedsegError, match='"unett" is no network; did you mean "unet"'):
        networks(["unett"])


def test_every_backend_is_listed_with_a_reason():
    listed = {one.name: one for one in networks(backends=True).backends}
    assert list(listed) == ["reference", "torch", "cpu", "triton"]
    assert listed["reference"].runs
    assert listed["torch"].runs
    assert all(one.reason for one in listed.values())
    assert set(networks(backends=True).as_json) == {"backends"}


def test_costs_are_given_in_the_order_of_x_y_z():
    result = costs(["dynunet"], size=(32, 32, 8), preset="small", console=QUIET)
    (row,) = result.networks
    # Halved as long as four cells remain: 32 three times, 8 once.
    assert row.output_stride == (8, 8, 2)
    assert row.receptive_field[0] == row.receptive_field[1] > row.receptive_field[2]
    assert result.size == (32, 32, 8)


def test_costs_grow_with_the_batch_and_count_the_weights_four_times():
    one, four = (
        costs(["unet"], size=(32, 24), batch=n, preset="small", console=QUIET).networks[0]
        for n in (1, 4)
    )
    assert four.kept_bytes > 3.5 * one.kept_bytes
    assert four.memory_bytes - four.kept_bytes == 4 * 4 * 483_170
    assert one.obstacle == ""
    assert min(one.inference_seconds, one.training_seconds) > 0


def test_a_network_that_does_not_fit_says_why_and_the_others_go_on():
    msd, unet = costs(["msd", "unet"], size=(1, 9), preset="small", console=QUIET).networks
    assert msd.obstacle == "1 voxels along an axis are too few: it takes 2 or more"
    assert msd.parameters == 11_629
    assert msd.memory_bytes is None
    assert unet.obstacle == ""


def test_a_table_fits_a_terminal_of_80_columns(medseg):
    ran = medseg("networks", "msd", "unet", "--size", "1,9", "--preset", "small")
    assert ran.code == 0
    assert "msd: 1 voxels along an axis are too few" in ran.output
    assert all(len(line) <= 80 for line in ran.output.splitlines())
    rows = [line for line in ran.output.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["msd", "unet"]


def test_json_has_all_of_it(medseg):
    found = medseg("networks", "unet", "--size", "24,16", "--preset", "small", "--json").json
    assert found["size"] == [24, 16]
    assert found["preset"] == "small"
    assert found["networks"][0]["output_stride"] == [8, 8]
    assert found["networks"][0]["receptive_field"] == [100, 100]
    assert found["networks"][0]["memory_bytes"] > found["networks"][0]["kept_bytes"] > 0


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--preset", "small"), "--size only"),
        (("--batch", "4"), "--size only"),
        (("--size", "64,64", "--backends"), "two questions"),
    ],
)
def test_options_that_would_do_nothing_are_refused(medseg, options, hint):
    ran = medseg("networks", *options)
    assert ran.code == 2
    assert hint in ran.errors


@pytest.mark.parametrize("size", ["256", "256,0", "256x256", "1,2,3,4"])
def test_a_size_is_two_or_three_numbers(medseg, size):
    ran = medseg("networks", "--size", size)
    assert ran.code == 2
    assert "256,256" in ran.errors


def test_numbers_are_shortened_to_three_digits():
    assert [short(n) for n in (8_854, 45_754, 137_000, 999_900, 1_927_874, 33_460_322)] == [
        "8.85 k", "45.8 k", "137 k", "1.00 M", "1.93 M", "33.5 M",
    ]  # fmt: skip
