"""MS-D's operator does what PyTorch expects of one."""

import copy
import logging

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medseg.networks import MSDNet
from medseg.networks.mixed_scale_dense import Backend, backend_states, choose_backend, cpu, operator

RUNS = [state.name for state in backend_states() if state.runs]
both = pytest.mark.parametrize("backend", [name for name in ("torch", "cpu") if name in RUNS])


def lively(backend: Backend = "auto", spatial_dims: int = 2, **settings) -> MSDNet:
    """A network with no weight that is zero."""
    torch.manual_seed(0)
    network = MSDNet(spatial_dims, 2, 3, backend=backend, **{"depth": 12, **settings})
    for weights in network.parameters():
        nn.init.normal_(weights, std=0.1)
    return network


def gradients(network: nn.Module, logits: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(logits.square().sum(), list(network.parameters())))


def operands(network: MSDNet, image: Tensor, keep: bool) -> tuple:
    flat = torch.cat([weights.reshape(-1) for weights in network.filters]).detach()
    head = network.head.weight.detach().flatten(1)
    biases, head_bias = network.biases.detach(), network.head.bias.detach()
    steps = [d for each in network.dilations for d in each]
    for tensor in (image, flat, biases, head, head_bias):
        tensor.requires_grad_(keep)
    backend = network.backend
    return image, flat, biases, steps, "reflect", head, head_bias, network.width, backend, keep


@both
@pytest.mark.parametrize("keep", [True, False])
def test_the_operator_is_registered_as_pytorch_asks(backend: str, keep: bool):
    network = lively(backend, depth=3).double()
    image = torch.randn(2, 2, 9, 7, dtype=torch.float64)
    checks = ["test_schema", "test_faketensor"] + ["test_autograd_registration"] * keep
    operator = torch.ops.medseg.mixed_scale_dense
    torch.library.opcheck(operator, operands(network, image, keep), test_utils=checks)


@both
def test_planes_are_kept_for_a_gradient_only(backend: str):
    network = lively(backend)
    image = torch.randn(1, 2, 16, 20)
    operator = torch.ops.medseg.mixed_scale_dense
    logits, none = operator(*operands(network, image, False))
    same, planes = operator(*operands(network, image, True))
    assert none.numel() == 0
    assert planes.numel() >= (2 + 12) * 16 * 20
    assert torch.equal(logits, same)
    assert network(image).grad_fn is not None
    with torch.no_grad():
        assert network(image).grad_fn is None


@both
def test_a_compiled_network_has_one_graph_and_the_same_gradients(backend: str):
    network = lively(backend)
    image = torch.randn(2, 2, 17, 20)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    expected, found = network(image), compiled(image)
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradients(network, found), gradients(network, expected), strict=True):
        torch.testing.assert_close(a, b)
    assert compiled(torch.randn(1, 2, 24, 18)).shape == (1, 3, 24, 18)


@both
def test_a_checkpoint_gives_the_same_gradients(backend: str):
    network = lively(backend)
    image = torch.randn(1, 2, 17, 20, requires_grad=True)
    again = checkpoint(network, image, use_reentrant=False)
    for a, b in zip(gradients(network, again), gradients(network, network(image)), strict=True):
        torch.testing.assert_close(a, b)


@both
def test_autocast_does_not_reach_the_features(backend: str):
    network = lively(backend)
    image = torch.randn(1, 2, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(image)
    assert torch.equal(logits, network(image))
    assert network(image.bfloat16()).dtype == torch.float32


@both
def test_a_second_derivative_is_refused(backend: str):
    network = lively(backend)
    image = torch.randn(1, 2, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(network(image).square().sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match=r"taken once: .* backend='reference'"):
        slope.sum().backward()


def test_the_reference_has_a_second_derivative():
    network = lively("reference", depth=2).double()
    image = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: network(x), (image,))


@both
def test_data_parallel_training_finds_no_unused_parameter(backend: str, tmp_path):
    from torch import distributed

    network = lively(backend)
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1
    )
    try:
        parallel = nn.parallel.DistributedDataParallel(copy.deepcopy(network))
        image = torch.randn(2, 2, 12, 13)
        for _ in range(2):  # an unused parameter of the first step fails in the second
            parallel.zero_grad()
            parallel(image).square().sum().backward()
    finally:
        distributed.destroy_process_group()
    for a, b in zip(parallel.parameters(), gradients(network, network(image)), strict=True):
        torch.testing.assert_close(a.grad, b)


@both
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_an_exported_network_gives_the_same_logits(backend: str, spatial_dims: int):
    network = lively(backend, spatial_dims, depth=6).eval()
    image = torch.randn(1, 2, *(7, 12, 15)[-spatial_dims:])
    exported = torch.export.export(network, (image,))
    names = {str(node.target) for node in exported.graph.nodes}
    assert not any("medseg" in name for name in names)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(image), network(image))


def test_one_rule_chooses_the_backend(monkeypatch, caplog):
    monkeypatch.setattr(cpu, "obstacle", lambda: "")
    operator._compiled.cache_clear()
    assert choose_backend("cpu", torch.float32) == "cpu"
    assert choose_backend("cpu", torch.float64) == "cpu"
    assert choose_backend("cpu", torch.bfloat16) == "torch"
    assert choose_backend("mps", torch.float32) == "torch"
    monkeypatch.setattr(cpu, "obstacle", lambda: "no C++ compiler")
    operator._compiled.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert choose_backend("cpu", torch.float32) == "torch"
        assert choose_backend("cpu", torch.float32) == "torch"
    assert caplog.messages == ["MS-D uses its slower torch backend on this CPU: no C++ compiler"]
    operator._compiled.cache_clear()


def test_a_backend_that_does_not_run_is_refused(monkeypatch):
    image = torch.randn(1, 2, 8, 8)
    monkeypatch.setattr(cpu, "obstacle", lambda: "no C++ compiler")
    with pytest.raises(ValueError, match=r"cpu backend .* does not run here: no C\+\+ compiler"):
        lively("cpu")(image)
    with pytest.raises(ValueError, match="backend is one of auto, reference, torch, cpu, triton"):
        lively("numpy")(image)


def test_a_missing_compiler_is_an_obstacle(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    cpu._library.cache_clear()
    cpu.obstacle.cache_clear()
    try:
        assert "no C++ compiler" in cpu.obstacle()
    finally:
        monkeypatch.undo()
        cpu._library.cache_clear()
        cpu.obstacle.cache_clear()
