"""The reader of pickled uint8 tables: the original download's form, Python 3's, and nothing that runs code."""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fsnn_lava.datasets.safe_pickle import read_pickled_arrays
from fsnn_lava.errors import DatasetError

Array = npt.NDArray[Any]


def python2_pickle(labels_key: str, labels: list[int], data: Array) -> bytes:
    """What Python 2 with NumPy wrote, as in the original download: byte strings, protocol 2."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode("ascii")

    def whole(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    kind = b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R" + b"(K\x03" + text("|") + b"NNN"
    kind += whole(-1) + whole(-1) + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
    raw = data.tobytes("F" if data.flags.f_contiguous else "C")
    array += b"(K\x01" + b"".join(whole(n) for n in data.shape) + b"\x86" + kind
    array += (b"\x88" if data.flags.f_contiguous else b"\x89") + b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    listed = b"](" + b"".join(whole(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text("data") + array + text(labels_key) + listed + b"u."


DATA = np.random.default_rng(0).integers(0, 256, (4, 6), np.uint8)


@pytest.mark.parametrize("data", [DATA, np.asfortranarray(DATA)])
def test_original_form_is_read_as_numpy_reads_it(tmp_path: Path, data: Array) -> None:
    path = tmp_path / "batch"
    path.write_bytes(python2_pickle("labels", [3, 1, 300, 0], data))
    # NumPy 2 warns of the module's old name, which the original files hold.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        trusted = pickle.loads(path.read_bytes(), encoding="latin1")
    assert np.array_equal(trusted["data"], DATA)
    found = read_pickled_arrays(path)
    assert set(found) == {"data", "labels"}
    assert found["labels"] == trusted["labels"] == [3, 1, 300, 0]
    assert found["data"].dtype == np.uint8
    assert np.array_equal(found["data"], DATA)
    assert found["data"].flags.writeable


@pytest.mark.parametrize("protocol", [3, 4])
def test_form_of_python_3_is_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({"data": DATA, b"labels": [1, 2], "name": b"one"}, protocol=protocol))
    found = read_pickled_arrays(path)
    assert np.array_equal(found.pop("data"), DATA)
    assert found == {"labels": [1, 2], "name": b"one"}


class Evil:
    """Makes a file when it is unpickled by an ordinary unpickler."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("hidden", [False, True])
def test_file_that_names_code_is_refused_and_nothing_runs(tmp_path: Path, protocol: int, hidden: bool) -> None:
    mark, path = tmp_path / "it ran", tmp_path / "batch"
    content = {"data": [{"deep": [Evil(mark)]}]} if hidden else Evil(mark)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(DatasetError, match=rf'{path}: it names "(__builtin__|builtins).exec", which is not part of'):
        read_pickled_arrays(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # an ordinary unpickler would have run it


@pytest.mark.parametrize(
    "name", ["numpy.frombuffer", "numpy.core.multiarray.scalar", "posix.system", "numpy.load", "numpy._reconstruct"]
)
def test_only_three_names_are_known(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    path = tmp_path / "batch"
    path.write_bytes(b"\x80\x02c" + f"{module}\n{function}\n".encode() + b".")
    with pytest.raises(DatasetError, match=re.escape(f'it names "{name}"')):
        read_pickled_arrays(path)


def test_known_names_cannot_be_turned_into_something_else(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    # the stand-in for NumPy's function, with a state set on it, as a pickle may ask for
    path.write_bytes(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x01aK\x01sb.")
    with pytest.raises(DatasetError, match="is truncated or no pickle: AttributeError"):
        read_pickled_arrays(path)


WHOLE = python2_pickle("labels", [1, 2, 3, 4], DATA)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *[(WHOLE[:n], "is truncated or no pickle") for n in (0, 1, 20, 100, len(WHOLE) - 1)],
        (WHOLE.replace(DATA.tobytes(), DATA.tobytes()[:-1]), "is truncated or no pickle"),
        (b"\x89PNG\r\n\x1a\n", "is truncated or no pickle"),
        (pickle.dumps([1, 2], 2), "holds a list; expected a dictionary"),
        (WHOLE.replace(b"U\x02u1", b"U\x02i1"), '"data" is not a whole array of uint8'),
        (WHOLE.replace(b"J\x06\0\0\0", b"J\x07\0\0\0"), '"data" is not a whole array of uint8'),
        (WHOLE.replace(b"J\x06\0\0\0", b"J\xfa\xff\xff\xff"), '"data" is not a whole array of uint8'),
        (pickle.dumps({"data": DATA.astype(object)}, 3), '"data" is not a whole array of uint8'),
        (pickle.dumps({"data": DATA.astype(np.int32)}, 3), '"data" is not a whole array of uint8'),
    ],
)
def test_damaged_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=re.escape(message)) as raised:
        read_pickled_arrays(path)
    assert str(path) in str(raised.value)
