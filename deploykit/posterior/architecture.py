"""Load the function that builds the network: `FILE.py:FACTORY` or `package.module:factory`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from torch import nn

from deploykit.errors import ArchitectureError

ModuleFactory = Callable[[], nn.Module]

FORM = "write FILE.py:FACTORY or package.module:factory"
FOLDER_MARK = "__deploykit_model_folder__"


def load_factory(reference: str) -> ModuleFactory:
    """A function that builds a fresh network, whose every failure is an ArchitectureError.

    FILE.py may import its siblings: its folder leads sys.path while it loads and while it builds.
    """
    source, separator, name = reference.rpartition(":")
    if not separator or not source or not name:
        raise ArchitectureError(f"'{reference}' names no factory; {FORM}")
    if source.endswith(".py"):
        path = Path(source)
        folder: Path | None = path.resolve().parent
        with _importing_from(folder):
            module = _load_file(path)
    else:
        folder = None
        module = _load_package(source)
    factory = getattr(module, name, None)
    if isinstance(factory, nn.Module):
        raise ArchitectureError(
            f"{reference}: '{name}' is a network already; name a function that builds it"
        )
    if not callable(factory):
        raise ArchitectureError(f"{source}: has no factory '{name}'; it has {_offers(module)}")

    def build() -> nn.Module:
        with _importing_from(folder):
            return _built(reference, factory)

    return build


def _built(reference: str, factory: Callable[[], object]) -> nn.Module:
    try:
        network = factory()
    except ModuleNotFoundError as error:
        raise _lacking(f"{reference}: building the network", error) from error
    except (Exception, SystemExit) as error:
        raise ArchitectureError(
            f"{reference}: building the network raised {_named(error)}; call it without arguments "
            "in Python and mend that first"
        ) from error
    if not isinstance(network, nn.Module):
        raise ArchitectureError(
            f"{reference}: returned a {type(network).__name__}, not a torch.nn.Module; "
            "return the network itself"
        )
    return network


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ArchitectureError(f"{path}: there is no such file; {FORM}")
    name = f"deploykit_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ArchitectureError(f"{path}: Python cannot load this file; {FORM}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        del sys.modules[name]
        raise _lacking(f"{path}: loading it", error) from error
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ArchitectureError(f"{path}: loading it raised {_named(error)}") from error
    return module


def _load_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ArchitectureError(
            f"module '{name}': importing it raised {_named(error)}; install it or put its folder "
            "on PYTHONPATH"
        ) from error


@contextmanager
def _importing_from(folder: Path | None) -> Iterator[None]:
    """Let imports find the files of `folder` first, and not those of another network's folder."""
    if folder is None:
        yield
        return
    for name, module in list(sys.modules.items()):
        if getattr(module, FOLDER_MARK, folder) != folder:
            del sys.modules[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(folder))
        for name in sys.modules.keys() - before:
            module = sys.modules[name]
            location = getattr(module, "__file__", None)
            if location and folder in Path(location).resolve().parents:
                setattr(module, FOLDER_MARK, folder)


def _offers(module: ModuleType) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    ]
    return ", ".join(own) if own else "no function of its own"


def _lacking(what: str, error: ModuleNotFoundError) -> ArchitectureError:
    """What to do about a module that this environment has not."""
    return ArchitectureError(
        f"{what} needs the Python module '{error.name}', which this environment lacks; install "
        f"its package ({sys.executable} -m pip install ...), put a file of your own beside the "
        "factory's, or name a factory of the deterministic twin, which needs torch alone"
    )


def _named(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
