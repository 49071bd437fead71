"""Reader of pickles that hold dictionaries, lists, numbers, bytes and uint8 arrays, and can hold nothing else.

CIFAR's original download is pickled, and an ordinary unpickler runs whatever code a file names. This one knows three
names, those that NumPy writes for an array, and has its own plain stand-ins for them, so that not even NumPy's code
is run; every other name is refused.
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fsnn_lava.datasets.files import read_bytes
from fsnn_lava.errors import DatasetError


def read_pickled_arrays(path: Path) -> dict[str, Any]:
    """Read the dictionary that a file holds; its keys as text, arrays as uint8.

    Raises
    ------
    DatasetError : if the file cannot be read, is truncated, holds anything else or names code.
    """
    try:
        values = _Unpickler(io.BytesIO(read_bytes(path)), encoding="bytes").load()
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle may raise anything, as the pickle module says
        raise DatasetError(f"{path} is truncated or no pickle: {error!r}. Get it again.") from error
    if not isinstance(values, dict):
        raise DatasetError(f"{path}: holds a {type(values).__name__}; expected a dictionary. Get it again.")
    decoded = {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in values.items()}
    return {k: v.whole(path, k) if isinstance(v, _PickledArray) else v for k, v in decoded.items()}


class _PickledArray:
    """What stands for an array while it is read: NumPy's state (version, shape, type, Fortran order, bytes)."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state: Any = None

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def whole(self, path: Path, name: str) -> npt.NDArray[np.uint8]:
        """Return the array; a copy that can be written to."""
        match self._state:
            case (int(), tuple(shape), _PickledType(code="u1"), bool(fortran), bytes(raw)) if _is_size(shape, len(raw)):
                return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C").copy("C")
        raise DatasetError(f'{path}: "{name}" is not a whole array of uint8. Get it again.')


def _is_size(shape: tuple[Any, ...], count: int) -> bool:
    return all(type(n) is int and n >= 0 for n in shape) and math.prod(shape) == count


class _PickledType:
    """What stands for an array's type while it is read."""

    __slots__ = ("code",)

    def __init__(self, code: Any) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like say nothing about uint8."""


class _ArrayClass:
    """Stands for numpy.ndarray, which pickles only name."""

    __slots__ = ()


class _NewArray:
    """Stands for NumPy's function that makes an empty array, to be filled from its state."""

    __slots__ = ()

    def __call__(self, kind: object, shape: object, code: object) -> _PickledArray:
        return _PickledArray()


class _NewType:
    """Stands for numpy.dtype."""

    __slots__ = ()

    def __call__(self, code: object, *flags: object) -> _PickledType:
        return _PickledType(code)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("numpy", "ndarray"):
                return _ArrayClass()
            case ("numpy", "dtype"):
                return _NewType()
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return _NewArray()
        raise DatasetError(
            f'it names "{module}.{name}", which is not part of a table of uint8 images; such a file may run foreign '
            "code and is not read. Get it again, from a place that you trust."
        )
