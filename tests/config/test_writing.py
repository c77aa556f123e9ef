"""Settings are written with their reasons, read back equal, and never over a file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.config import commented_yaml, read_value, write_new
from medseg.errors import MedsegError

names = st.text("abcdefgh_", min_size=1, max_size=8)
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20
)
numbers = st.integers(-10, 10**6) | st.floats(-1e6, 1e6, allow_nan=False)
values = st.recursive(
    texts | numbers | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(names, values, max_size=4), st.dictionaries(names, values, max_size=4), texts
)
def test_what_is_written_reads_back_equal(top, section, reason):
    settings = [(key, value, reason) for key, value in top.items() if key != "data"]
    settings += [(f"data.{key}", value, reason) for key, value in section.items()]

    content = read_value(commented_yaml(settings, heading=[reason])) or {}
    expected = {key: value for key, value in top.items() if key != "data"}
    assert content == (expected | {"data": section} if section else expected)


def test_each_setting_stands_below_its_reason():
    settings = [("name", "cells", ""), ("data.patch_voxels", [64, 32], "fits the memory")]

    assert commented_yaml(settings, heading=["Cells."]) == (
        "# Cells.\nname: cells\ndata:\n  # fits the memory\n  patch_voxels: [64, 32]\n"
    )


def test_nothing_is_written_if_one_file_is_there(tmp_path):
    old, new = tmp_path / "b.yaml", tmp_path / "a.yaml"
    old.write_text("mine")

    with pytest.raises(MedsegError, match=r"b\.yaml: is there already"):
        write_new({new: "a", old: "b"})
    assert [file.name for file in tmp_path.iterdir()] == ["b.yaml"]
    assert old.read_text() == "mine"

    write_new({new: "a"})
    assert new.read_text() == "a"
