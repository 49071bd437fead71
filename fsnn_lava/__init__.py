"""Train feedback spiking networks by implicit differentiation; deploy them to Lava with proof.

Importing this package imports neither torch nor Lava: each name is loaded from its package when it is asked for.
"""

import importlib
from collections.abc import Callable, Mapping

__version__ = "0.1.0"


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that loads each of its names on first use (PEP 562).

    Parameters
    ----------
    homes : public name -> module below the package that defines it.
    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return load, lambda: sorted(homes)
