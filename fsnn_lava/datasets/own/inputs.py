"""A user's own inputs for a trained network: image files, recordings of events, arrays in files of NumPy's."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fsnn_lava.config import DataConfig
from fsnn_lava.datasets.files import read_bytes
from fsnn_lava.datasets.input_coding import Array, InputCoding, plain_array
from fsnn_lava.datasets.own.event_folder import recording_frames
from fsnn_lava.datasets.own.image_folder import ENDINGS, image_form, image_pixels
from fsnn_lava.datasets.own.places import ARRAYS
from fsnn_lava.datasets.own.recordings import READERS
from fsnn_lava.datasets.samples import codes_of
from fsnn_lava.errors import InputError

_ARRAY = ".npy"
_GREYS = 255


def read_inputs(
    files: Sequence[Path], coding: InputCoding, *, shape: tuple[int, ...], settings: DataConfig | None = None
) -> tuple[Array, list[str]]:
    """Read inputs and turn them into codes.

    An image becomes grey or RGB, as the network has one channel or three, and must have its height and width, unless
    the network's own images were scaled: then it is scaled as they were. An array holds one input, or several; whole
    numbers are codes, floats the normalised values that training sees.

    Parameters
    ----------
    files : images, recordings for a network that was trained on such, `.npy`, or `.npz` with one array or with one of
        the name x.
    coding, shape : what codes mean, and the shape of an input, (C, H, W) or (T, C, H, W) of event frames.
    settings : of the data that the network was trained on.

    Returns
    -------
    uint8 codes (n, *shape), and for each where it is from: ``digit.png``, ``many.npy[3]``.

    Raises
    ------
    InputError : if a file holds no input of that shape, or a value has no code.
    DatasetError : if a file cannot be read.
    """
    codes, names = [], []
    for file in files:
        kind = file.suffix.lower()
        if kind in READERS and settings is not None and settings.sensor_height and _is_recording(file):
            found = recording_frames(file, settings)
            _check_frames(found, file, shape)
        elif kind in ENDINGS:
            found = _of_image(file, coding, shape=shape, settings=settings or DataConfig())
        elif kind in (_ARRAY, ARRAYS):
            found = _of_arrays(file, coding, shape=shape)
        else:
            of_events = [ending for ending in READERS if ending not in (_ARRAY, ARRAYS)]
            allowed = ", ".join((*ENDINGS, _ARRAY, ARRAYS, *(of_events if coding.kind == "event" else ())))
            raise InputError(f"{file}: found a file that ends in {kind or 'nothing'}; allowed: {allowed}")
        codes.append(found)
        names += [str(file)] if len(found) == 1 else [f"{file}[{i}]" for i in range(len(found))]
    return np.concatenate(codes), names


def _is_recording(file: Path) -> bool:
    """Tell whether a file holds events, and not frames of them."""
    if file.suffix.lower() not in (_ARRAY, ARRAYS):
        return True
    try:
        found = np.load(io.BytesIO(read_bytes(file)), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    if isinstance(found, np.lib.npyio.NpzFile):
        return set("xytp") <= set(found.files)
    return found.dtype.names is not None or (found.ndim == 2 and found.shape[1] == len("xytp"))


def _check_frames(found: Array, file: Path, shape: tuple[int, ...]) -> None:
    if found.shape[1:] != shape:
        raise InputError(f"{file}: found frames of shape {found.shape[1:]}; the network takes inputs of shape {shape}")


def _of_image(file: Path, coding: InputCoding, *, shape: tuple[int, ...], settings: DataConfig) -> Array:
    if len(shape) != 3 or shape[0] not in (1, 3) or coding.kind == "event":
        raise InputError(
            f"{file}: found an image; the network takes {coding.kind} inputs of shape {shape}; give arrays"
        )
    if abs(coding.scale * coding.maximum - 1) > 1e-9:
        raise InputError(
            f"{file}: found an image, whose pixels are 0 .. 1; the network's codes mean 0 .. "
            f"{coding.scale * coding.maximum:g}; give arrays"
        )
    channels, height, width = shape
    found = image_form(file)[:2]
    if found != (height, width) and not settings.height:
        raise InputError(
            f"{file}: found an image of {found[0]} x {found[1]}; the network takes {height} x {width}; scale it"
        )
    pixels = image_pixels(file, grey=channels == 1, size=(width, height))
    return np.asarray(np.rint(pixels[None] * (coding.maximum / _GREYS)), np.uint8)


def _of_arrays(file: Path, coding: InputCoding, *, shape: tuple[int, ...]) -> Array:
    content = read_bytes(file)
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
        if file.suffix.lower() == ARRAYS:
            names = list(found.files)
            if "x" not in names and len(names) != 1:
                raise InputError(f"{file}: found the arrays {', '.join(names)}; expected one, or one of the name x")
            found = found["x" if "x" in names else names[0]]
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{file}: cannot be read as an array of numbers: {error}") from error
    array = plain_array(found, str(file))
    one = array.shape in (shape, shape[1:] if shape[0] == 1 else shape, (int(np.prod(shape)),))
    several = array.reshape(1, *shape) if one else array
    if several.shape[1:] != shape and several.shape[1:] == shape[1:] and shape[0] == 1:
        several = several[:, None]
    if several.ndim == 2 and several.shape[1] == np.prod(shape):
        several = several.reshape(len(several), *shape)
    if several.shape[1:] != shape or not len(several):
        raise InputError(f"{file}: found an array of shape {array.shape}; the network takes inputs of shape {shape}")
    try:
        return codes_of(several, coding, shape=shape[-3:])
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
