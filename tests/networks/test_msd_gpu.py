"""The GPU kernels of MS-D compute what ``reference`` does.

Where there is no GPU, ``TRITON_INTERPRET=1`` runs them on the CPU, slowly: small images only.
Without it triton, installed, still compiles them for GPUs that are not there.
"""

from importlib.util import find_spec
from math import prod

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st
from msd_pairs import assert_same, configurations, pair, slopes
from torch import Tensor

from medseg.networks.mixed_scale_dense import choose_backend, gpu

runs = pytest.mark.skipif(
    bool(gpu.obstacle()),
    reason=f"{gpu.obstacle()}: install triton and, without a GPU, set TRITON_INTERPRET=1",
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DRAWN = {} if DEVICE == "cuda" else {"batch": 2, "longest": (7, 3), "most": (5, 3)}
# Of the largest number of an output or a gradient. bfloat16 has 8 bits, and rounds every plane.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}


def compare(shape: tuple[int, ...], settings: dict, *, layout: str = "", storage=torch.float32):
    """Hold logits and all gradients to those of ``reference``, on an image laid out in memory."""
    networks = pair(len(shape) - 2, "triton", in_channels=shape[1], **settings)
    reference, network = (each.float().to(DEVICE) for each in networks)
    generator = torch.Generator().manual_seed(prod(shape))
    image = arranged(torch.randn(shape, generator=generator).to(DEVICE), layout)
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=storage == torch.bfloat16):
        found = slopes(network, image)
    assert found["logits"].dtype == torch.float32
    assert_same(slopes(reference, image), found, TOLERANCES[storage])


def arranged(image: Tensor, layout: str) -> Tensor:
    if layout == "channels last":
        last = {4: torch.channels_last, 5: torch.channels_last_3d}[image.dim()]
        return image.contiguous(memory_format=last)
    return image.repeat_interleave(2, -1)[..., ::2] if layout == "strided" else image


@runs
@pytest.mark.slow
@pytest.mark.parametrize("padding_mode", ["reflect", "zeros"])
@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((1, 2, 5, 4), {"depth": 3, "dilations": (1, 3)}),
        ((2, 2, 4, 5), {"depth": 18, "dilations": (2,)}),
        ((1, 1, 13, 11), {"depth": 2, "width": 2}),
        ((1, 2, 3, 4, 3), {"depth": 2, "dilations": ((1, 2, 3),)}),
    ],
)
def test_logits_and_gradients_are_those_of_the_reference(
    shape, settings, padding_mode, monkeypatch
):
    monkeypatch.setattr(gpu, "_CHUNK", 1)
    compare(shape, {**settings, "padding_mode": padding_mode})


@pytest.fixture
def small_blocks(monkeypatch):
    """So that small images and networks have several of everything; tensor cores need 16."""
    if DEVICE == "cpu":
        monkeypatch.setattr(gpu, "_BLOCK", 2)
        monkeypatch.setattr(gpu, "_VOXELS", 32)
        monkeypatch.setattr(gpu, "_CHUNK", 2)


cases = given(
    configurations(**DRAWN),
    st.sampled_from(["contiguous", "channels last", "strided"]),
    st.sampled_from([torch.float32, torch.float32, torch.bfloat16]),
)


def draw(examples: int):
    return how(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


@runs
@draw(6)
@cases
def test_a_few_drawn_networks_are_those_of_the_reference(
    small_blocks, configuration, layout: str, storage: torch.dtype
):
    compare(*configuration, layout=layout, storage=storage)


@runs
@pytest.mark.slow
@draw(200)
@cases
def test_many_drawn_networks_are_those_of_the_reference(
    small_blocks, configuration, layout: str, storage: torch.dtype
):
    compare(*configuration, layout=layout, storage=storage)


@runs
def test_what_is_not_a_number_stays_so(small_blocks):
    reference, network = (each.float().to(DEVICE) for each in pair(2, "triton", depth=2))
    image = torch.randn(1, 2, 9, 8, device=DEVICE)
    image[0, 0, 4, 4] = torch.nan
    assert reference(image).isnan().any()
    assert torch.equal(network(image).isnan(), reference(image).isnan())


@runs
def test_images_that_the_kernels_cannot_count_are_refused(monkeypatch):
    _, network = pair(2, "triton", depth=1)
    monkeypatch.setattr(gpu, "_CHUNKS", 0)
    with pytest.raises(ValueError, match=r"takes images of up to 0 voxels, got 20: give it parts"):
        network.float().to(DEVICE)(torch.randn(1, 2, 5, 4, device=DEVICE))


def test_only_networks_of_float32_are_for_triton(monkeypatch):
    monkeypatch.setattr(gpu, "obstacle", lambda: "")
    assert choose_backend("cuda", torch.float32) == "triton"
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        assert choose_backend("cuda", dtype) == "torch"


def test_products_are_as_exact_as_pytorch_is_set():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for precision in ("tf32", "ieee"):
            matmul.fp32_precision = precision
            assert gpu._precision() == precision
    finally:
        matmul.fp32_precision = before


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("triton") is None or gpu.interpreted(),
    reason="triton is not installed, or TRITON_INTERPRET is set and nothing is compiled",
)
@pytest.mark.parametrize("name", ["take_one", "take_many", "give_many", "correlate"])
@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_a_gpu_that_is_not_there(name, capability, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from medseg.networks.mixed_scale_dense import gpu_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(gpu_kernels, name)
    sizes = {"P": gpu._VOXELS, "K": gpu._BLOCK, "S": gpu._BLOCK, "CHUNK": gpu._CHUNK}
    for flat, reflect, fresh, precision, planes in (
        (True, True, False, "ieee", "*fp32"),
        (True, False, True, "tf32", "*bf16"),
        (False, True, True, "tf32", "*fp32"),
        (False, False, False, "ieee", "*bf16"),
    ):
        chosen = {"FLAT": flat, "REFLECT": reflect, "FRESH": fresh, "PRECISION": precision, **sizes}
        # What is 1 is known when a kernel is compiled.
        ones = {"batch": 1, **({"depth": 1} if flat else {})}
        floats = dict.fromkeys(("sums", "weights", "biases", "slopes", "found"), "*fp32")
        places = dict.fromkeys(("ontos", "sources_at", "deltas_at"), "*i64")
        kinds = {"planes": planes, **floats, **places}
        constants = {key: (chosen | ones)[key] for key in kernel.arg_names if key in chosen | ones}
        signature = {
            key: "constexpr" if key in constants else kinds.get(key, "i32")
            for key in kernel.arg_names
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert compiled.asm["cubin"]
