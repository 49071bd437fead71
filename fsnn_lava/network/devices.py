"""Where a training computes: its device, its memory and random numbers there, and how its products round.

Three kinds of products are told apart, because a spike is a threshold's yes or no and a gradient is a mean. The figures
are those of `benchmarks/ide/precision.py` on a network of four convolutions that was trained in float32.

- The spiking run is always that of float32. Rounded to TF32 or bfloat16, weights move 30 % of the spikes and the rates
  by 3 %; float32 itself moves 0.7 % and 0.6 % against float64. Where TF32 is allowed, a weight therefore goes into the
  spiking run as a sum of two TF32 values, which moves as few: spikes are 0 or 1, exact in any format.
- The equilibrium map is float32 as well: in bfloat16 its clamp passes another part of the gradient (off by 7 %).
- Products with the transposed Jacobian may be bfloat16 (the gradient is off by 6e-4), and with the map's backward pass
  TF32 (2e-4): both below the 7e-4 of the default tolerance of the adjoint solve. On a CPU that pass is in bfloat16 too
  (3e-3), and the spiking run in int8, by three parts of each weight, which move as few spikes as float32.

Batch statistics, softmax, loss and optimizer are float32.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn

from fsnn_lava.config import PrecisionName, TrainConfig, topology_of
from fsnn_lava.errors import ConfigError

TRAINING_COPIES = 3
"""What a training holds of each parameter: its value, its gradient and its momentum, in float32."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def open_device(name: str, *, local_rank: int = 0, processes: int = 1) -> torch.device:
    """The device of that name, which this machine has; for ``cuda`` the one of this process.

    Parameters
    ----------
    name : cpu, cuda or cuda:N.
    local_rank : number of this process on this machine, as torchrun counts them.
    processes : how many there are in all.

    Raises
    ------
    ConfigError : this machine lacks the device, or several processes would share it.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"training.device: found {name!r}; allowed: cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ConfigError(f"training.device: found {name!r}; allowed: cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(count)]
    if not found:
        raise ConfigError(f"training.device: found {name!r}; this machine has the cpu alone ({_why_no_cuda()})")
    if processes > 1 and device.index is not None:
        raise ConfigError(
            f"training.device: found {name!r} with {processes} processes; allowed: cuda, which gives each its own"
        )
    index = local_rank if device.index is None else device.index
    if index >= len(found):
        raise ConfigError(
            f"training.device: found {name!r} (number {index} for this process); "
            f"this machine has cpu, {', '.join(found)}; choose one of them, or start fewer processes"
        )
    return torch.device("cuda", index)


def device_title(device: torch.device) -> str:
    """What a person calls the device, e.g. "NVIDIA H200" or "AMD EPYC"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        for line in cpu_info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown CPU"


def check_precision(precision: PrecisionName, device: torch.device) -> None:
    """Refuse a precision for which the device has no units.

    Raises
    ------
    ConfigError : the device has no units for that precision, which would be emulated or ignored.
    """
    if precision == "tf32" and device.type == "cpu":
        raise ConfigError("training.precision: found 'tf32' on a CPU, which has none; allowed: float32 or bf16")
    if precision != "float32" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise ConfigError(
            f"training.precision: found {precision!r}; {device_title(device)} has no tensor cores for it "
            "(they came with compute capability 8.0); allowed: float32"
        )


def place(model: nn.Module, device: torch.device) -> None:
    """Move the model to the device, on CUDA with the channels of convolutions last."""
    model.to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within it, products on CUDA round their factors to TF32, or do not; both flags are put back afterwards."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before


@contextmanager
def prepared(device: torch.device) -> Iterator[None]:
    """Within it, no product is TF32 unless asked for, and cuDNN tries its algorithms once per shape."""
    if device.type == "cpu":
        with tf32(False):
            yield
        return
    before = torch.backends.cudnn.benchmark
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True
    try:
        with tf32(False):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


def check_memory(config: TrainConfig, input_shape: tuple[int, ...], classes: int, *, copies: int = 1) -> None:
    """Raise if the parameters alone need more memory than the machine has; nothing is allocated.

    Parameters
    ----------
    input_shape : of one sample.
    classes : how many.
    copies : arrays of the size of the parameters that are held at a time.

    Raises
    ------
    ConfigError : with the memory that they need.
    SpecError : the notation does not fit the input.
    """
    network = config.network
    count = topology_of(network, input_shape).parameters(classes)
    needed, there = 4 * copies * count, machine_memory()
    if needed > there:
        raise ConfigError(
            f'network.{"notation" if network.notation else "connections"}: found "{network.title}" with {count:,} '
            "parameters, which need "
            f"{needed / 2**30:,.1f} GiB ({copies} x 4 bytes each); allowed: what fits the {there / 2**30:,.1f} GiB of "
            "this machine; choose smaller layers"
        )


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or the limit of its container."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or no limit ("max")
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return memory


@contextmanager
def memory_errors_named() -> Iterator[None]:
    """Turn what Python, torch's allocators and CUDA raise when memory runs out into a ConfigError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        raise ConfigError(
            f"memory ran out: {text.splitlines()[0] if text else 'found none left'}; choose a smaller "
            "training.batch_size or smaller layers in network.notation"
        ) from error


class SharedGenerator(torch.Generator):
    """A generator whose numbers are drawn for a whole batch, of which this process keeps its rows.

    Attributes
    ----------
    rows : this process's rows of the batch.
    total : samples in the whole batch.
    """

    rows: slice
    total: int


def shared_generator(device: torch.device, *, seed: int, rows: slice, total: int) -> SharedGenerator:
    """A seeded generator on a device, for `rows` of `total` samples."""
    generator = SharedGenerator(device)
    generator.manual_seed(seed)
    generator.rows, generator.total = rows, total
    return generator


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA; install a build with it, or use --device cpu"
    return f"torch {torch.__version__} finds no NVIDIA GPU with a driver; see nvidia-smi, or use --device cpu"
