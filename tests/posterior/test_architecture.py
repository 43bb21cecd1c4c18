"""Factories from files and packages, and the sentences when they fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from deploykit.errors import ArchitectureError
from deploykit.posterior.architecture import load_factory

MODEL = """
from pathlib import Path
from torch import nn
from torch.nn import Linear

class Net(nn.Sequential):
    def __init__(self, width=3):
        super().__init__(nn.Linear(2, width))

def small():
    return Net()

def wide():
    import sizes
    return Net(sizes.WIDTH)

def needs(width):
    return Net(width)

def number():
    return 3

def broken():
    raise KeyError("depth")

def library():
    import no_such_library

instance = Net()
constant = 5
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "sizes.py").write_text("WIDTH = 7\n")
    return tmp_path / "net.py"


def width(network: nn.Module) -> int:
    layer = network.get_submodule("0")
    assert isinstance(layer, nn.Linear)
    return layer.out_features


def test_function_and_class(model: Path) -> None:
    assert width(load_factory(f"{model}:small")()) == 3
    assert width(load_factory(f"{model}:Net")()) == 3


def test_each_call_builds_anew(model: Path) -> None:
    build = load_factory(f"{model}:small")
    assert build() is not build()


def test_relative_path(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert width(load_factory("net.py:small")()) == 3


def test_sibling_imported_while_building(model: Path) -> None:
    path = list(sys.path)
    assert width(load_factory(f"{model}:wide")()) == 7
    assert sys.path == path


def test_siblings_of_one_folder_do_not_serve_another(tmp_path: Path) -> None:
    builds = []
    for folder, size in (("one", 4), ("two", 5)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "layer_sizes.py").write_text(f"WIDTH = {size}\n")
        (tmp_path / folder / "net.py").write_text(
            "from torch import nn\nimport layer_sizes\n"
            "def build():\n    return nn.Sequential(nn.Linear(1, layer_sizes.WIDTH))\n"
        )
        builds.append(load_factory(f"{tmp_path / folder / 'net.py'}:build"))
    assert [width(build()) for build in builds] == [4, 5]


def test_package() -> None:
    build = load_factory("tests.posterior.gnj_layers:plain_net")
    assert isinstance(build(), nn.Sequential)


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("smal", r"net\.py: has no factory 'smal'; it has Net, small, wide, needs, number"),
        ("constant", "has no factory 'constant'"),
        ("instance", "'instance' is a network already; name a function"),
    ],
)
def test_no_such_factory(model: Path, factory: str, sentence: str) -> None:
    with pytest.raises(ArchitectureError, match=sentence):
        load_factory(f"{model}:{factory}")


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("number", r"net\.py:number: returned a int, not a torch\.nn\.Module"),
        ("broken", "building the network raised KeyError: 'depth'"),
        ("needs", "building the network raised TypeError: .*'width'"),
        ("library", "needs the Python module 'no_such_library'.* -m pip install .*twin"),
    ],
)
def test_factory_that_fails(model: Path, factory: str, sentence: str) -> None:
    build = load_factory(f"{model}:{factory}")
    with pytest.raises(ArchitectureError, match=sentence):
        build()


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("net.py", r"'net\.py' names no factory; write FILE\.py:FACTORY"),
        (":build", "names no factory"),
        ("net.py:", "names no factory"),
        ("nowhere/net.py:build", r"nowhere/net\.py: there is no such file"),
        ("no_such_package.models:build", "importing it raised ModuleNotFoundError"),
        ("json:build", "json: has no factory 'build'; it has dump, dumps, "),
    ],
)
def test_bad_references(reference: str, sentence: str) -> None:
    with pytest.raises(ArchitectureError, match=sentence):
        load_factory(reference)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def build(:\n", r"net\.py: loading it raised SyntaxError"),
        ("import sys\nsys.exit(2)\n", "loading it raised SystemExit: 2"),
        (
            "import no_such_library\n",
            r"net\.py: loading it needs the Python module 'no_such_library'.* -m pip install",
        ),
        ("", "has no factory 'build'; it has no function of its own"),
    ],
)
def test_file_that_does_not_load(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "net.py"
    path.write_text(text)
    with pytest.raises(ArchitectureError, match=sentence):
        load_factory(f"{path}:build")
