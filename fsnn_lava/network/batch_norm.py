"""Batch norm with the statistics of the whole batch, also where several processes hold a part of it each."""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional


def batch_norm(
    x: Tensor,
    running: tuple[Tensor, Tensor],
    affine: tuple[Tensor, Tensor],
    *,
    momentum: float,
    eps: float,
    over_processes: bool,
) -> Tensor:
    """x (B, C, *) normalised with its batch statistics, which move the running ones; differentiable.

    Over processes: equal to `functional.batch_norm` of the batches of all, put together (torch's own synchronised
    batch norm does not run on a CPU).

    Parameters
    ----------
    running : (C,) running mean and running (unbiased) variance, changed in place.
    affine : (C,) gain and shift.
    momentum, eps : as `functional.batch_norm` takes them.
    over_processes : take the statistics over the parts of all processes of the default group.
    """
    if not (over_processes and distributed.is_initialized()):
        return functional.batch_norm(x, *running, *affine, training=True, momentum=momentum, eps=eps)
    mean, variance, count = batch_statistics(x, over_processes=True)
    with torch.no_grad():
        running[0].lerp_(mean, momentum)
        running[1].lerp_(variance * (count / (count - 1)), momentum)
    scale = affine[0] / (variance + eps).sqrt()
    return (x - _channelwise(mean, x)) * _channelwise(scale, x) + _channelwise(affine[1], x)


def batch_statistics(x: Tensor, *, over_processes: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance (C,) of x (B, C, *), and (1,) of how many values they are; differentiable."""
    x = x.float() if x.dtype == torch.bfloat16 else x
    axes = [axis for axis in range(x.dim()) if axis != 1]
    count = x.new_full((1,), x.numel() // x.shape[1])
    if not (over_processes and distributed.is_initialized()):
        return x.mean(axes), x.var(axes, unbiased=False), count
    sums = _sum_over_processes(torch.cat([x.sum(axes), count]))
    mean, count = sums[:-1] / sums[-1:], sums[-1:].detach()
    squares = _sum_over_processes((x - _channelwise(mean, x)).square().sum(axes))
    return mean, squares / count, count


def _channelwise(values: Tensor, like: Tensor) -> Tensor:
    return values.view((1, -1) + (1,) * (like.dim() - 2))


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return total


class _SumOverProcesses(torch.autograd.Function):
    """The sum of every process's values. Each value reaches the loss of every process: so its gradient is a sum too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total
