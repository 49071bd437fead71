"""Train feedback spiking networks by implicit differentiation; deploy them to Lava with proof.

``import fsnn_lava as fsnn`` offers one verb for each step; README shows them in a row. A config is taken wherever
single settings are. Importing this package imports neither torch nor Lava nor NumPy: each name is loaded from its
package when it is asked for (PEP 562). The packages offer more; docs/architecture.md lists them.
"""

import importlib
from collections.abc import Callable, Mapping

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:  # what type checkers and editors see
    from fsnn_lava.backends import run as run
    from fsnn_lava.config import (
        ConnectionConfig as ConnectionConfig,
        DeployConfig as DeployConfig,
        NetworkConfig as NetworkConfig,
        TrainConfig as TrainConfig,
        TrainingConfig as TrainingConfig,
        read_config as read_config,
    )
    from fsnn_lava.conversion import from_zoo as from_zoo, load as load, lower as lower, save as save
    from fsnn_lava.datasets import Dataset as Dataset, load_dataset as load_dataset
    from fsnn_lava.errors import FsnnError as FsnnError
    from fsnn_lava.quantization import quantize as quantize
    from fsnn_lava.training import evaluate as evaluate, train as train
    from fsnn_lava.verification import verify as verify


def lazy_names(
    package: str, names: Mapping[str, str]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a package that loads each of its names on first use (PEP 562).

    Parameters
    ----------
    names : module below the package -> public names that it defines, with blanks between them.
    """
    homes = {name: home for home, defined in names.items() for name in defined.split()}

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return list(homes), load, lambda: sorted(homes)


_names, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "datasets": "Dataset load_dataset",
        "config": "TrainConfig NetworkConfig ConnectionConfig TrainingConfig DeployConfig read_config",
        "training": "train evaluate",
        "conversion": "lower save load from_zoo",
        "quantization": "quantize",
        "backends": "run",
        "verification": "verify",
        "errors": "FsnnError",
    },
)
__all__ = ["__version__", *_names]
