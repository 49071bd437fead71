"""What an input code stands for, and how a user's own arrays become codes.

Hardware receives integers of 8 bits; training sees the real values that they stand for, so that both sides start from
the same integers. Every loader of this package states an `InputCoding`; `Dataset.from_arrays` finds one here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fsnn_lava.errors import DatasetError, InputError

Array = npt.NDArray[Any]

LEVELS = 256
"""Codes of 8 bits: 0 .. 255."""
_ROWS = 4096
"""Samples that are coded at a time, so that float64 copies stay small."""


@dataclass(frozen=True)
class InputCoding:
    """What an input code stands for: real value = (code * scale - mean[c]) / std[c], c the channel.

    Parameters
    ----------
    kind : ``graded``: one code per element, the same in every step; ``event``: 0/1 frames, one per step.
    maximum : largest code, 1 .. 255; 1 for events. Codes start at 0.
    scale : value of one code before the normalisation.
    mean, std : of each channel, in the unit of ``code * scale``; std > 0.

    Raises
    ------
    DatasetError : if a field is out of its range or mean and std differ in length.
    """

    kind: Literal["graded", "event"]
    maximum: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.maximum <= (1 if self.kind == "event" else 255):
            raise DatasetError(f"input coding: maximum {self.maximum}; allowed: 1 for events, 1 .. 255 for graded.")
        if not self.mean or len(self.mean) != len(self.std):
            raise DatasetError(
                f"input coding: {len(self.mean)} means, {len(self.std)} stds; needs one of each a channel."
            )
        if not (0 < self.scale < np.inf and all(0 < s < np.inf for s in self.std) and np.isfinite(self.mean).all()):
            raise DatasetError(f"input coding: {self}; scale and std must be finite and > 0, mean finite.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "InputCoding":
        """Make it of what `dataclasses.asdict` and JSON leave of one.

        Raises
        ------
        KeyError, TypeError, DatasetError : if a field is missing, unknown or out of its range.
        """
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def table(self, dtype: type[np.floating[Any]] = np.float32) -> Array:
        """Return the real value of every code, (C, maximum + 1), computed in float64 and rounded to the type."""
        levels = np.arange(self.maximum + 1) * self.scale
        table: Array = (levels - np.array(self.mean)[:, None]) / np.array(self.std)[:, None]
        return table.astype(dtype)

    def decode(self, codes: Array, dtype: type[np.floating[Any]] = np.float32) -> Array:
        """Return real values of that type, computed in float64 and rounded; same shape as the codes.

        Parameters
        ----------
        codes : uint8 (B, C, H, W), or (T, B, C, H, W) for one frame per step.
        dtype : float32, as in training, or float64.

        Raises
        ------
        InputError : if dtype, shape or a code does not fit this coding.
        """
        channels = len(self.mean)
        if codes.dtype != np.uint8 or codes.ndim not in (4, 5) or codes.shape[-3] != channels:
            raise InputError(
                f"codes of dtype {codes.dtype} and shape {codes.shape}; "
                f"expected uint8 (B, {channels}, H, W) or (T, B, {channels}, H, W)."
            )
        if codes.size and codes.max() > self.maximum:
            raise InputError(f"found input code {codes.max()}; allowed: 0 .. {self.maximum}.")
        values = np.empty(codes.shape, dtype)
        for c, row in enumerate(self.table(dtype)):
            values[..., c, :, :] = row[codes[..., c, :, :]]
        return values

    def encode(self, values: Array) -> Array:
        """Code real values (..., C, H, W), which are normalised as training's are: the nearest codes, uint8.

        Raises
        ------
        InputError : if a value is not finite or more than half a step beyond the first or last code.
        """
        per_channel = (-1, 1, 1)
        mean, std = (np.array(x, np.float64).reshape(per_channel) for x in (self.mean, self.std))
        codes: Array = np.rint((values.astype(np.float64) * std + mean) / self.scale)
        if not ((codes >= 0) & (codes <= self.maximum)).all():  # false for nan too
            table = self.table(np.float64)
            raise InputError(
                f"found values from {values.min():.4g} to {values.max():.4g}; the codes stand for "
                f"{table.min():.4g} .. {table.max():.4g}: (x - mean) / std of the training part."
            )
        return codes.astype(np.uint8)


def plain_array(values: object, what: str) -> Array:
    """Return a NumPy array of numbers; of a torch tensor its values, without torch being imported here.

    Raises
    ------
    DatasetError : if it holds anything but integers, booleans and finite floats.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{what}: cannot be read as an array of numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise DatasetError(f"{what}: found an array of type {array.dtype}; allowed: integers or floats")
    for start in range(0, len(array) if array.ndim and array.dtype.kind == "f" else 0, _ROWS):
        finite = np.isfinite(array[start : start + _ROWS])
        if not finite.all():
            place = np.argwhere(~finite)[0] + np.eye(1, array.ndim, dtype=int)[0] * start
            where = ", ".join(map(str, place))
            raise DatasetError(f"{what}: found {array[tuple(place)]} at [{where}]; every value must be finite")
    return array


def code_arrays(
    train: Array, test: Array, *, mean: Sequence[float] | float | None, std: Sequence[float] | float | None
) -> tuple[Array, Array, InputCoding, str]:
    """Code inputs in 8 bits, and find the normalisation that training uses.

    Whole numbers 0 .. 255 are the codes, and so are whole multiples of 1/255 up to 1 (pixels divided by 255). The range
    of every other channel, of both parts together, is divided into 255 equal steps, and values are rounded to the
    nearest; a feature of (n, N) is a channel of its own. No value is clipped.

    Parameters
    ----------
    train, test : arrays of finite numbers: images (n, C, H, W), features (n, N), which become (n, N, 1, 1), or event
        frames (n, T, C, H, W) of 0 and 1.
    mean, std : of each channel or of all, in the unit of the inputs. None: those of the training part's codes; of
        features one std for all, since a weight is divided by it and all weights of a layer share one exponent. Events
        are not normalised unless told so.

    Returns
    -------
    Codes of both parts, uint8 (n, C, H, W) or, for events, (n, T, C, H, W); what they stand for; by how much inputs are
    rounded, in words: empty if they are codes, or codes divided by 255.

    Raises
    ------
    DatasetError : if shapes do not fit each other, event frames hold other values, or mean and std do not fit.
    """
    _check_shapes(train, test)
    events, features = train.ndim == 5, train.ndim == 2
    if features:
        train, test = (x[:, :, None, None] for x in (train, test))
    axis = 2 if events else 1
    low, step = _range(train, test, axis)
    if events and not ((low == 0).all() and (step == 1).all() and max(train.max(), test.max()) <= 1):
        raise DatasetError("event frames (n, T, C, H, W): found values other than 0 and 1; allowed: 0 and 1")
    (coded, error), (coded_test, error_test) = (_codes(x, low, step, axis) for x in (train, test))
    own_mean, own_std = (np.zeros_like(low), np.ones_like(low)) if events else _statistics(coded, pooled=features)
    coding = InputCoding(
        "event" if events else "graded",
        maximum=max(int(coded.max()), int(coded_test.max()), 1),
        scale=1.0,  # step and offset of each channel are in mean and std
        mean=tuple(own_mean.tolist() if mean is None else ((_each(mean, "mean", low) - low) / step).tolist()),
        std=tuple(own_std.tolist() if std is None else (_each(std, "std", low) / step).tolist()),
    )
    error = max(error, error_test)
    rounded = error > step.max() / 1000  # less is the rounding of the arrays' own type
    note = f"inputs rounded to {LEVELS} levels, by at most {error:.2g}" if rounded else ""
    return coded, coded_test, coding, note


def _check_shapes(train: Array, test: Array) -> None:
    for part, x in (("training", train), ("test", test)):
        if x.ndim not in (2, 4, 5):
            raise DatasetError(
                f"{part} inputs of shape {x.shape}; expected images (n, C, H, W), features (n, N) or event frames "
                "(n, T, C, H, W); grey images get their channel by x[:, None]"
            )
        if not x.size:
            raise DatasetError(f"{part} inputs of shape {x.shape}: no values; expected at least one sample")
    if train.shape[1:] != test.shape[1:]:
        raise DatasetError(
            f"training inputs of shape {train.shape}, test inputs of {test.shape}; expected samples of one shape"
        )


def _range(train: Array, test: Array, axis: int) -> tuple[Array, Array]:
    """Find the value of code 0 and the step from one code to the next, each float64 (C,), over both parts."""
    axes = tuple(i for i in range(train.ndim) if i != axis)
    low = np.minimum(train.min(axes), test.min(axes)).astype(np.float64)
    high = np.maximum(train.max(axes), test.max(axes)).astype(np.float64)
    zero = np.zeros_like(low)
    for step in (1.0, 1 / 255):
        if low.min() >= 0 and high.max() <= 255 * step and all(_is_multiple(x, step) for x in (train, test)):
            return zero, zero + step
    with np.errstate(over="ignore"):
        step_of_channel = (high - low) / (LEVELS - 1)
    if not np.isfinite(step_of_channel).all():
        raise DatasetError(f"inputs from {low.min()} to {high.max()}: too wide a range to be coded in {LEVELS} levels")
    return low, np.where(step_of_channel > 0, step_of_channel, 1.0)


def _is_multiple(x: Array, step: float) -> bool:
    """Return whether all values are whole multiples of the step, up to the rounding of their own type."""
    if x.dtype.kind != "f":
        return step == 1.0
    tolerance = 0.0 if step == 1.0 else 512 * float(np.finfo(x.dtype).eps)
    quotients = (x[start : start + _ROWS].astype(np.float64) / step for start in range(0, len(x), _ROWS))
    return all(bool((np.abs(q - np.rint(q)) <= tolerance).all()) for q in quotients)


def _codes(x: Array, low: Array, step: Array, axis: int) -> tuple[Array, float]:
    """Codes, uint8 of the shape of x, and the largest rounding error."""
    codes, error = np.empty(x.shape, np.uint8), 0.0
    by_channel = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    low, step = low.reshape(by_channel), step.reshape(by_channel)
    for start in range(0, len(x), _ROWS):
        values = x[start : start + _ROWS].astype(np.float64)
        nearest = np.rint((values - low) / step)
        codes[start : start + _ROWS] = nearest
        error = max(error, float(np.abs(nearest * step + low - values).max()))
    return codes, error


def _statistics(codes: Array, *, pooled: bool) -> tuple[Array, Array]:
    """Mean and standard deviation (C,) of codes (n, C, H, W); pooled: one deviation for all; 1 of a constant."""
    sums, squares = np.zeros((2, codes.shape[1]), np.int64)
    for start in range(0, len(codes), _ROWS):
        part = codes[start : start + _ROWS].astype(np.int64)
        sums, squares = sums + part.sum((0, 2, 3)), squares + (part * part).sum((0, 2, 3))
    count = codes.size // codes.shape[1]
    mean = sums / count
    variance = np.maximum(squares / count - mean * mean, 0.0)
    if pooled:
        variance = np.full_like(variance, variance.mean())
    return mean, np.where(variance > 0, np.sqrt(variance), 1.0)


def _each(given: Sequence[float] | float, name: str, channels: Array) -> Array:
    values = np.asarray(given, np.float64)
    if values.shape not in ((), (1,), channels.shape):
        raise DatasetError(f"{name}: found {values.shape}; expected one number, or {len(channels)}, one a channel")
    return np.broadcast_to(values, channels.shape)
