"""A layer's bytes depend on paths and contents alone, and any range of them can be read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fairlead.serving.images.image import packages_layer
from fairlead.serving.images.layers import Layer, LayerFile, files_below

VECTOR_ONE = "sha256:221bd1ff710614ef4d0a2073868eac8c3b419f3dbc32efe1c665e882d36791a1"
VECTOR_TWO = "sha256:17ea1ba34b23bde9295ed95113352b549f54f5720c1ff03a90e2f83bdc4a58f3"
PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60
)
NAMES = PARTS.filter(lambda part: part not in {".", ".."})


def content_of(layer: Layer) -> bytes:
    return b"".join(layer.read())


def test_the_vectors_of_the_reference_hold() -> None:
    one = Layer([LayerFile(path="opt/a.txt", content=b"hello\n")])
    assert one.size == 2560
    assert one.digest == VECTOR_ONE
    two = Layer([LayerFile(path="opt/ä" + "x" * 120, content=b"", is_program=True)])
    assert two.digest == VECTOR_TWO


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=6), st.integers(0, 9000), st.integers(0, 9000))
def test_tar_reads_what_was_laid_out_from_any_byte_on(files: dict[str, bytes], start: int, length: int) -> None:
    layer = Layer(LayerFile(path=f"top/{name}", content=data) for name, data in files.items())
    content = content_of(layer)
    assert len(content) == layer.size
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {each.name: archive.extractfile(each) for each in archive if each.isfile()}
        assert {name: stream.read() for name, stream in found.items() if stream is not None} == {
            f"top/{name}": data for name, data in files.items()
        }
    start, end = min(start, layer.size), min(start + length, layer.size)
    assert b"".join(layer.read(start, end)) == content[start:end]


def test_neither_the_time_nor_the_order_of_files_matters(tmp_path: Path) -> None:
    layers: list[Layer] = []
    for number, names in enumerate((["a", "b/c", "b/d"], ["b/d", "a", "b/c"])):
        folder = tmp_path / str(number)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        layers.append(Layer(files_below(folder, "x")))
    assert layers[0].digest == layers[1].digest


def test_what_an_installer_writes_of_itself_is_in_no_layer(tmp_path: Path) -> None:
    for name in ("six.py", "six-1.dist-info/METADATA", "six-1.dist-info/RECORD", "bin/six", ".lock", "x/bin/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with tarfile.open(fileobj=io.BytesIO(content_of(packages_layer(tmp_path)))) as archive:
        names = [each.name.removeprefix("opt/fairlead/site-packages/") for each in archive if each.isfile()]
    assert names == ["six-1.dist-info/METADATA", "six.py", "x/bin/y"]
