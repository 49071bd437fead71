"""Single nodes of a NIR graph: the shapes they send, their linear maps, and which of their values are allowed."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from fsnn_lava.hardware import DENSE, Array, Convolution, LinearMap, Shape

Faults = list[tuple[str, str]]
"""(found, allowed)"""


def node_faults(node: Any, time_step: float) -> Faults:
    """Values of a node that cannot be understood."""
    check = _FAULTS.get(type(node).__name__)
    return check(node, time_step) if check else []


def shape_of(value: Any) -> Shape:
    """A tuple of integers."""
    return tuple(int(n) for n in np.atleast_1d(value))


def _pair(value: Any) -> tuple[int, ...]:
    """Height and width of something that may be one number."""
    return tuple(int(n) for n in np.broadcast_to(np.asarray(value), (2,)))


POOLS = ("AvgPool2d", "SumPool2d")


def window(node: Any) -> int:
    """Side of what a pool averages or adds up."""
    return _pair(node.kernel_size)[0]


def share_of_mean(node: Any, kind: str) -> float:
    """By what the mean over a pool's window is to be multiplied: its size, where the pool adds up."""
    return 1.0 if kind == "AvgPool2d" else float(window(node) ** 2)


def _padding(node: Any) -> tuple[int, ...]:
    if isinstance(node.padding, str):
        return (0, 0) if node.padding == "valid" else tuple((k - 1) // 2 for k in node.weight.shape[2:])
    return _pair(node.padding)


def reached(node: Any, kind: str, arriving: Shape) -> Shape:
    """Shape that Conv2d, a pool, Flatten or Output sends on; () if it cannot take what arrives."""
    if not arriving:
        return ()
    if kind == "Flatten":
        end = len(arriving) if node.end_dim == -1 else int(node.end_dim) + 1
        start = int(node.start_dim)
        return (*arriving[:start], prod(arriving[start:end]), *arriving[end:])
    if kind == "Output" or len(arriving) != 3:
        return shape_of(node.output_type["output"]) if kind == "Output" else ()
    if kind in POOLS:
        return (arriving[0], *(n // window(node) for n in arriving[1:]))
    kernel, stride, padding = node.weight.shape[2], _pair(node.stride)[0], _padding(node)[0]
    return (len(node.weight), *((n + 2 * padding - kernel) // stride + 1 for n in arriving[1:]))


def linear_map_of(node: Any, kind: str, arriving: Shape, sent: Shape) -> LinearMap:
    """Linear map of a Linear, Affine (without its bias), Conv2d or pool node."""
    if kind == "Conv2d":
        geometry = Convolution(_pair(node.stride)[0], _padding(node)[0])
        return LinearMap(geometry, node.weight.astype(np.float64), arriving, sent)
    if kind in POOLS:
        side, channels = window(node), arriving[0]
        weight = np.eye(channels)[:, :, None, None] * np.full((side, side), share_of_mean(node, kind) / side**2)
        return LinearMap(Convolution(side, 0), weight, arriving, sent)
    return LinearMap(DENSE, node.weight.astype(np.float64), arriving, sent)


def time_constants(node: Any) -> dict[str, Array]:
    """Time constants of a neuron by name, those that its type has."""
    return {name: np.asarray(getattr(node, name)) for name in ("tau", "tau_mem", "tau_syn") if hasattr(node, name)}


def _neuron_faults(node: Any, time_step: float) -> Faults:
    constants = time_constants(node)
    faults = []
    weight = ("w_in",) if hasattr(node, "w_in") else ()
    for name in ("r", "v_threshold", "v_reset", *weight, *constants):
        values = np.asarray(getattr(node, name))
        if not np.isfinite(values).all() or np.ptp(values) > 0:
            faults.append((f"{name} from {values.min()} to {values.max()}", "one finite value for all of its neurons"))
    if faults:
        return faults
    threshold, reset, r = (float(getattr(node, n).flat[0]) for n in ("v_threshold", "v_reset", "r"))
    if threshold <= 0 or reset >= threshold:
        faults.append((f"v_threshold {threshold:g}, v_reset {reset:g}", "v_threshold above 0 and above v_reset"))
    if r <= 0:
        faults.append((f"r {r:g}", "more than 0"))
    for name, values in constants.items():
        constant = float(values.flat[0])
        if constant < time_step or (constant == time_step and name != "tau_syn"):
            least = "at least" if name == "tau_syn" else "more than"
            faults.append((f"{name} {constant:g}", f"{least} the time step, {time_step:g}"))
    if hasattr(node, "tau_syn") and float(node.tau_syn.flat[0]) > time_step and np.any(node.v_leak):
        faults.append(
            (
                f"v_leak from {np.min(node.v_leak):g} to {np.max(node.v_leak):g} beside a synaptic current that decays",
                "0: our constant currents pass the synapse, whose decay v_leak bypasses",
            )
        )
    return faults


def _linear_faults(node: Any, time_step: float) -> Faults:
    faults = [] if node.weight.ndim == 2 else [(f"weight of shape {node.weight.shape}", "two axes")]
    bias = getattr(node, "bias", None)
    if bias is not None and bias.shape != node.weight.shape[:1]:
        faults.append((f"bias of shape {bias.shape}", f"{node.weight.shape[:1]}, one per row of the weight"))
    return faults


def _conv_faults(node: Any, time_step: float) -> Faults:
    shape = node.weight.shape
    if len(shape) != 4 or shape[2] != shape[3]:
        return [(f"weight of shape {shape}", "(C_out, C_in, K, K)")]
    faults = []
    if int(node.groups) != 1 or _pair(node.dilation) != (1, 1):
        faults.append((f"groups {int(node.groups)}, dilation {_pair(node.dilation)}", "1 and 1"))
    stride, padding = _pair(node.stride), _padding(node)
    same = isinstance(node.padding, str) and node.padding == "same"
    if same and (shape[2] % 2 == 0 or stride != (1, 1)):
        faults.append((f'padding "same" of kernels of {shape[2]}, stride {stride}', "kernels of odd size, stride 1"))
    if len(set(stride)) > 1 or stride[0] < 1 or len(set(padding)) > 1 or not 0 <= padding[0] < shape[2]:
        faults.append((f"stride {stride}, padding {padding}", f"the same in both axes, padding 0 .. {shape[2] - 1}"))
    if np.shape(node.bias) != shape[:1]:
        faults.append((f"bias of shape {np.shape(node.bias)}", f"{shape[:1]}, one per channel"))
    return faults


def _pool_faults(node: Any, time_step: float) -> Faults:
    kernel, stride, padding = _pair(node.kernel_size), _pair(node.stride), _pair(node.padding)
    if len({*kernel, *stride}) > 1 or kernel[0] < 1 or padding != (0, 0):
        return [(f"kernel {kernel}, stride {stride}, padding {padding}", "square, stride as the kernel, padding 0")]
    return []


_FAULTS: Mapping[str, Callable[[Any, float], Faults]] = {
    "IF": _neuron_faults,
    "LIF": _neuron_faults,
    "CubaLIF": _neuron_faults,
    "Linear": _linear_faults,
    "Affine": _linear_faults,
    "Conv2d": _conv_faults,
    "AvgPool2d": _pool_faults,
    "SumPool2d": _pool_faults,
}
