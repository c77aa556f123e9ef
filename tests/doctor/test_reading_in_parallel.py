"""Cases are read by several threads, which share the memory."""

import threading
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image as Picture

from medseg.data import Case, LabelMap, Reading
from medseg.doctor import examine_cases
from medseg.doctor.examine import Memory, _chance_brighter, digest


def test_threads_never_hold_more_than_there_is():
    memory, seen, lock = Memory(10), [], threading.Lock()

    def work(needed: int) -> None:
        with memory.of(needed), lock:
            seen.append(memory.taken)

    threads = [threading.Thread(target=work, args=(n,)) for n in (4, 7, 3, 30, 5, 6) * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)

    assert len(seen) == 30, "who needs more than all works alone, and nobody waits for ever"
    assert max(seen) <= 10
    assert memory.taken == 0


def test_facts_come_in_the_order_of_the_cases(tmp_path: Path):
    cases = []
    for number in range(8):
        for part in ("image", "labels"):
            pixels = np.full((6, 6), number if part == "image" else 1, np.uint8)
            Picture.fromarray(pixels).save(tmp_path / f"{part}_{number}.png")
        files = tmp_path / f"image_{number}.png", tmp_path / f"labels_{number}.png"
        cases.append(Case(f"case {number}", files[:1], files[1], "one"))
    counted = []
    facts = examine_cases(
        cases, Reading(("light",)), LabelMap({"background": 0, "cell": 1}), kind="semantic",
        workers=3, progress=lambda: counted.append(1),
    )  # fmt: skip

    assert [one.name for one in facts] == [case.name for case in cases]
    assert [one.image.channels[0].highest for one in facts] == list(range(8))
    assert len(counted) == 8


@given(arrays(np.uint8, (3, 4)))
def test_the_same_numbers_have_the_same_digest_in_any_type(pixels):
    kinds = (np.uint16, np.int32, np.float32, np.float64)

    assert {digest(pixels.astype(kind)) for kind in kinds} == {digest(pixels)}
    changed = pixels.copy()
    changed[0, 0] ^= 1
    assert digest(changed) != digest(pixels)


def test_huge_numbers_keep_digests_of_their_own():
    huge = np.array([[1e30, 2e30]], np.float32)

    assert digest(huge) != digest(2 * huge)


values = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(values, values)
def test_the_contrast_is_the_share_of_brighter_pairs(these, those):
    pairs = [(a > b) + 0.5 * (a == b) for a in these for b in those]

    found = _chance_brighter(np.array(these, float), np.array(those, float))

    assert abs(found - np.mean(pairs)) < 1e-9
