"""Small models of random weights, and images for them."""

import numpy as np
import torch

from medseg.inference import Model, ModelSpec
from medseg.networks import NETWORKS
from medseg.transforms import NORMALISATIONS, Preparation


def make_model(folder, dims, *, spacing, unit, structures, **changed):
    torch.manual_seed(7)
    preparation = Preparation(
        spatial_dims=dims, spacing=spacing, unit=unit, normalisation=NORMALISATIONS.build("zscore")
    )
    spec = ModelSpec(
        name="cells",
        spatial_dims=dims,
        channels=("membrane", "nucleus"),
        structures=structures,
        network="msd",
        network_settings={"depth": 3, "dilations": [1, 2]},
        preparation=preparation.to_dict(),
        window_voxels=(16,) * dims,
        **changed,
    )
    network = NETWORKS.build("msd", dims, 2, len(structures), depth=3, dilations=[1, 2])
    for weight in network.parameters():
        torch.nn.init.normal_(weight)
    folder.mkdir(parents=True)
    Model(spec, network).save(folder)
    return folder


def images(dims, side=20):
    return np.random.default_rng(3).normal(size=(2, 2, *(side,) * dims)).astype(np.float32)
