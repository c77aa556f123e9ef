"""The list of networks."""

from medseg.jobs.networks import networks
from medseg.networks import NETWORKS


def test_every_network_is_listed_with_its_parameters():
    listed = {one.name: one for one in networks(backends=False).networks}
    assert list(listed) == list(NETWORKS)
    assert listed["msd"].parameters == (45_754, 136_654)


def test_every_backend_is_listed_with_a_reason():
    listed = {one.name: one for one in networks(backends=True).backends}
    assert list(listed) == ["reference", "torch", "cpu", "triton"]
    assert listed["reference"].runs
    assert listed["torch"].runs
    assert all(one.reason for one in listed.values())
    assert set(networks(backends=True).as_json) == {"backends"}
