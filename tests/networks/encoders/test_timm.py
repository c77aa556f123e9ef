"""Encoders of timm: with timm itself where it can be imported, and with a stand-in where not."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from medseg.networks import NETWORKS, DeepLabV3, DeepLabV3Plus
from medseg.networks.encoders import Encoder, make_encoder
from medseg.networks.layers import receptive_field


@pytest.fixture
def real_timm() -> ModuleType:
    """Timm, which imports torchvision, which must have been built for the installed torch."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"timm cannot be imported here: {error}")
    return timm


class _Features(nn.Module):
    """Stands for what timm.create_model returns with features_only: a list of five maps."""

    def __init__(self, in_chans: int, output_stride: int, last: nn.Module | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.reductions = []
        reduction = 1
        for number in range(5):
            stride = 2 if reduction * 2 <= output_stride else 1
            reduction *= stride
            self.reductions.append(reduction)
            self.layers.append(nn.Conv2d(4 if number else in_chans, 4, 3, stride, padding=1))
        if last is not None:
            self.layers[-1] = last
        self.feature_info = SimpleNamespace(
            reduction=lambda: self.reductions, channels=lambda: [4] * 5
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for layer in self.layers:
            image = layer(image)
            maps.append(image)
        return maps


class _StandIn(ModuleType):
    """Stands for the four functions of timm that are called, and records how."""

    def __init__(self) -> None:
        super().__init__("timm")
        self.calls: list[dict[str, object]] = []
        self.known = ["resnet18", "fixed", "pooled"]

    def is_model(self, name: str) -> bool:
        return name in self.known

    def list_models(self) -> list[str]:
        return self.known

    def create_model(self, name: str, **settings) -> nn.Module:
        self.calls.append({"name": name, **settings})
        if name == "fixed" and "output_stride" in settings:
            raise TypeError("__init__() got an unexpected keyword argument 'output_stride'")
        if settings["pretrained"]:
            raise OSError("no route to the hub")
        last = nn.AvgPool2d(2) if name == "pooled" else None
        return _Features(settings["in_chans"], settings.get("output_stride", 32), last)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> _StandIn:
    module = _StandIn()
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm:resnet18.* pip install 'medseg\[timm\]'"):
        make_encoder("timm:resnet18", 2, 1)


def test_a_torchvision_for_another_torch_is_the_same_error(monkeypatch: pytest.MonkeyPatch):
    class Broken:
        """Stands for torchvision's failure beside a torch that it was not built for."""

        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "timm":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(ValueError, match=r"medseg\[timm\].*nms does not exist"):
        make_encoder("timm:resnet18", 2, 1)


def test_channels_and_output_stride_are_handed_to_timm(stand_in: _StandIn):
    encoder = make_encoder("timm:resnet18", 2, 5)
    encoder.set_output_stride(8)
    shared = {"name": "resnet18", "features_only": True, "pretrained": False, "in_chans": 5}
    assert stand_in.calls == [shared, {**shared, "output_stride": 8}]
    assert encoder.grids == [(2, 2), (4, 4), (8, 8), (8, 8), (8, 8)]


@pytest.mark.parametrize("name", ["deeplabv2", "deeplabv3", "deeplabv3plus", "gcn", "pspnet"])
def test_weights_that_cannot_be_downloaded_are_an_error(name: str, stand_in: _StandIn):
    with pytest.raises(ValueError, match=r"could not be loaded \(no route to the hub"):
        NETWORKS[name](2, 1, 2, encoder="timm:resnet18", pretrained=True)
    assert stand_in.calls[0]["pretrained"] is True


def test_only_timm_has_pretrained_weights():
    with pytest.raises(ValueError, match=r'^pretrained: not a setting of encoder "resnet18"'):
        DeepLabV3(2, 1, 2, pretrained=True)


def test_what_cannot_be_is_refused(stand_in: _StandIn):
    with pytest.raises(ValueError, match='no "timm:resnet19"; did you mean "resnet18"'):
        make_encoder("timm:resnet19", 2, 1)
    with pytest.raises(ValueError, match="needs a model, as in"):
        make_encoder("timm", 2, 1)
    with pytest.raises(ValueError, match="for slices, got spatial_dims 3"):
        make_encoder("timm:resnet18", 3, 1)
    with pytest.raises(ValueError, match="resample to equal spacing"):
        DeepLabV3(2, 1, 2, encoder="timm:resnet18", spacing=(5.0, 1.0))
    with pytest.raises(ValueError, match='"timm:fixed" has no output stride 8 in timm'):
        DeepLabV3(2, 1, 2, encoder="timm:fixed")
    with pytest.raises(ValueError, match=r"shift what it sees by half a cell at layers\.4"):
        make_encoder("timm:pooled", 2, 1)


def test_another_output_stride_keeps_the_very_parameters(stand_in: _StandIn):
    encoder = make_encoder("timm:resnet18", 2, 1).eval()
    before = [id(weights) for weights in encoder.parameters()]
    encoder.set_output_stride(16)
    assert [id(weights) for weights in encoder.parameters()] == before
    assert not encoder.trunk.training


def linear(encoder: Encoder) -> Encoder:
    """Norms away, kernels averaging, poolings averaging: a ramp stays a ramp, times a factor."""
    for parent in list(encoder.modules()):
        for key, part in list(parent.named_children()):
            if isinstance(part, nn.GroupNorm | nn.LayerNorm | nn.modules.batchnorm._NormBase):
                setattr(parent, key, nn.Identity())
            elif isinstance(part, nn.MaxPool2d):
                setattr(parent, key, nn.AvgPool2d(part.kernel_size, part.stride, part.padding))
    with torch.no_grad():
        for weights in encoder.parameters():
            weights.fill_(1 / weights[0].numel() if weights.dim() == 4 else 0.0)
    return encoder.double().eval()


@pytest.mark.parametrize("stride", [32, 8])
@pytest.mark.parametrize(
    "model", ["resnet18", "regnety_002", "efficientnet_b0", "tf_efficientnet_b0", "xception41"]
)
def test_centres_stay_in_place_where_strided_kernels_are_odd(model: str, stride: int, real_timm):
    encoder = make_encoder(f"timm:{model}", 2, 1)
    encoder.set_output_stride(stride)
    assert encoder.aligned_corners
    assert centre_of_a_cell(encoder) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("model", ["vgg11_bn", "convnext_atto"])
def test_edges_stay_in_place_where_kernels_are_as_wide_as_their_stride(model: str, real_timm):
    encoder = make_encoder(f"timm:{model}", 2, 1)
    assert not encoder.aligned_corners
    with pytest.raises(ValueError, match=r"no output stride 8|half a cell"):
        encoder.set_output_stride(8)
    assert encoder.grids[-1] == (32, 32), "as before"
    assert centre_of_a_cell(encoder) == pytest.approx(31 / 2, abs=0.01)


def centre_of_a_cell(encoder: Encoder) -> float:
    """Voxels from the first voxel of a middle cell, i * stride, to what the cell sees."""
    encoder = linear(encoder)
    stride = encoder.grids[-1][0]
    image = torch.arange(60 * 32 + encoder.aligned_corners, dtype=torch.float64).expand(
        1, 1, 33, -1
    )
    with torch.no_grad():
        row = encoder(encoder.pad(image))[-1][0, 0, 0]
    middle = len(row) // 2
    slope = (row[middle + 1] - row[middle]) / stride
    return float(row[middle] / slope) - middle * stride


@pytest.mark.parametrize("model", ["resnet18", "regnetx_002"])
def test_finer_maps_contain_the_coarser_map_of_the_same_weights(model: str, real_timm):
    torch.manual_seed(0)
    encoder = make_encoder(f"timm:{model}", 2, 1).eval().double()
    image = torch.randn(1, 1, 129, 129).double()
    maps = {}
    with torch.no_grad():
        for stride in (32, 16, 8):
            encoder.set_output_stride(stride)
            maps[stride] = encoder(image)[-1]
    for stride, step in ((8, 4), (16, 2)):
        torch.testing.assert_close(maps[stride][..., ::step, ::step], maps[32])


def test_receptive_fields_are_those_of_our_own_networks(real_timm):
    with torch.device("meta"):
        own = {"resnet18": make_encoder("resnet18", 2, 3)}
        own["xception65"] = make_encoder("xception65", 2, 3)
    for model, encoder in own.items():
        theirs = make_encoder(f"timm:{model}", 2, 3)
        for stride in (32, 8):
            encoder.set_output_stride(stride)
            theirs.set_output_stride(stride)
            assert receptive_field(theirs.steps(0)) == receptive_field(encoder.steps(0))


def test_weights_of_our_own_networks_are_as_many(real_timm):
    for model in ("resnet18", "resnet50", "xception65", "xception71"):
        with torch.device("meta"):
            own = make_encoder(model, 2, 3, norm="batch")
            theirs = real_timm.create_model(model, num_classes=0)
        assert sum(w.numel() for w in own.parameters()) == sum(
            w.numel() for w in theirs.parameters()
        )


@pytest.mark.parametrize("model", ["resnet18", "mobilenetv3_small_050"])
def test_deeplab_takes_it_for_any_size_and_trains(model: str, real_timm):
    network = DeepLabV3Plus(2, 2, 3, encoder=f"timm:{model}", aspp_channels=16)
    for size in ((65, 97), (33, 20)):
        logits = network(torch.randn(2, 2, *size))
        assert logits.shape == (2, 3, *size)
    logits.square().sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in network.parameters())
    other = DeepLabV3Plus(2, 2, 3, encoder=f"timm:{model}", aspp_channels=16)
    other.load_state_dict(network.state_dict())
    image = torch.randn(1, 2, 40, 50)
    assert torch.equal(network.eval()(image), other.eval()(image))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("densenet121", "half a cell at features_transition1.pool"),
        ("resnet50d", "half a cell at layer2.0.downsample.0"),
        ("swin_tiny_patch4_window7_224", "refuses an image"),
        ("vit_tiny_patch16_224", "maps at strides"),
        ("convnext_atto", "half a cell"),
    ],
)
def test_what_would_shift_or_has_no_maps_is_refused(model: str, reason: str, real_timm):
    with pytest.raises(ValueError, match=reason):
        DeepLabV3(2, 1, 2, encoder=f"timm:{model}")
