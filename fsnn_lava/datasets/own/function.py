"""A dataset that a user's own function returns, named ``package.module:function``."""

import importlib
import re

from fsnn_lava.datasets.samples import Dataset, check_classes
from fsnn_lava.errors import DatasetError

_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_function(name: str) -> bool:
    """Tell whether this names a function."""
    return _FUNCTION.fullmatch(name) is not None


def load_from_function(name: str) -> Dataset:
    """Call the function, which takes no arguments and returns a `Dataset`.

    Raises
    ------
    DatasetError : if there is no such function, it fails, or it returns something else.
    """
    module, function = name.split(":")
    try:
        call = getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise DatasetError(
            f'dataset "{name}": module {module} cannot be imported ({error}); is its folder the current one, or on '
            "PYTHONPATH?"
        ) from error
    except AttributeError:
        raise DatasetError(f'dataset "{name}": module {module} has no function {function}') from None
    try:
        dataset = call()
    except Exception as error:  # whatever a user's function raises
        raise DatasetError(f'dataset "{name}": its function raised {type(error).__name__}: {error}') from error
    if not isinstance(dataset, Dataset):
        raise DatasetError(
            f'dataset "{name}": its function returned {type(dataset).__name__}; expected fsnn_lava.Dataset, such as '
            "Dataset.from_arrays makes"
        )
    check_classes(dataset)
    return dataset
