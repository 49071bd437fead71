"""What training/test_processes.py runs in two processes: each has its share, and compares with the whole batch."""

import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torch.testing import assert_close

from fsnn_lava.config import TrainConfig
from fsnn_lava.config.notation import parse_spec
from fsnn_lava.datasets import Augmentation
from fsnn_lava.network.batch_norm import batch_norm, batch_statistics
from fsnn_lava.network.devices import shared_generator
from fsnn_lava.network.fixed_point import solve
from fsnn_lava.network.layers import Synapse
from fsnn_lava.training import FitResult, fit
from fsnn_lava.training.checkpoint import load_checkpoint, load_training
from fsnn_lava.training.processes import ALONE, Ranks, average, joined, ranks_of_environment
from short_training import Told, changed, short_digits

CPU = torch.device("cpu")


def whole_batch(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 3


def check_batch_norm(ranks: Ranks) -> None:
    """Value, gradients and running statistics of the whole batch; seven samples, so that the shares differ."""
    for shape in ((7, 5), (7, 5, 4, 3)):
        whole = whole_batch(shape).requires_grad_()
        weighting = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        gain, shift = (torch.linspace(a, b, 5, dtype=torch.float64).requires_grad_() for a, b in ((0.5, 2), (-1, 1)))
        mean, variance = torch.full((5,), 0.3, dtype=torch.float64), torch.full((5,), 1.7, dtype=torch.float64)
        expected = functional.batch_norm(whole, mean, variance, gain, shift, training=True, momentum=0.1, eps=1e-5)
        gradients = torch.autograd.grad((expected * weighting).sum(), (whole, gain, shift))

        rows = ranks.share(7)
        part = whole.detach()[rows].clone().requires_grad_()
        running = torch.full((5,), 0.3, dtype=torch.float64), torch.full((5,), 1.7, dtype=torch.float64)
        found = batch_norm(part, running, (gain, shift), momentum=0.1, eps=1e-5, over_processes=True)
        assert_close(found, expected[rows], rtol=1e-12, atol=1e-12)
        assert_close(running, (mean, variance), rtol=1e-12, atol=1e-12)
        of_part, *of_affine = torch.autograd.grad((found * weighting[rows]).sum(), (part, gain, shift))
        assert_close(of_part, gradients[0][rows], rtol=1e-10, atol=1e-12)
        for own, total in zip(of_affine, gradients[1:], strict=True):
            assert_close(ranks.sums(own), total, rtol=1e-10, atol=1e-12)

        alone = batch_norm(part, running, (gain, shift), momentum=0.1, eps=1e-5, over_processes=False)
        assert not torch.allclose(alone, found, atol=1e-3), "its own statistics are others"
        assert_close(batch_statistics(part, over_processes=True)[0], whole.mean([0, *range(2, whole.dim())]))


def check_masks(ranks: Ranks) -> None:
    """Of several processes each has the rows that one process would have."""
    layer = parse_spec("6").layers[0]
    synapse = Synapse(
        layer,
        None,
        input_shape=(4,),
        shape=(6,),
        source=0,
        target=0,
        generator=torch.Generator(),
        bias=True,
        batch_norm=False,
        dropout=0.5,
    )
    whole = synapse.bind(7, generator=torch.Generator().manual_seed(3)).mask
    rows = ranks.share(7)
    own = synapse.bind(rows.stop - rows.start, generator=shared_generator(CPU, seed=3, rows=rows, total=7)).mask
    assert torch.equal(own, whole[rows])


def check_solver(ranks: Ranks) -> None:
    """Each sample is solved by itself, so that a part of the batch has the same solutions as the whole."""
    factors = torch.tensor([[0.3], [0.95]], dtype=torch.float64)
    start = torch.ones(2, 3, dtype=torch.float64)
    own, options = ranks.share(2), {"tolerance": 1e-4, "max_steps": 500}
    whole = solve(lambda x: factors * x + 1, start, method="fixed_point", **options)  # type: ignore[arg-type]
    part = solve(lambda x: factors[own] * x + 1, start[own], method="fixed_point", **options)  # type: ignore[arg-type]
    assert torch.equal(part.residuals, whole.residuals[own])
    assert torch.equal(part.value, whole.value[own])
    assert ranks.largest(float(ranks.rank), device=CPU) == ranks.size - 1


def check_sums(ranks: Ranks) -> None:
    mine = torch.tensor([1.0, float(ranks.rank)])
    assert ranks.sums(mine).tolist() == [2.0, 1.0]
    assert mine.tolist() == [1.0, float(ranks.rank)], "what was given stays"
    tensors = [torch.full((2, 2), float(ranks.rank)), torch.tensor([float(4 * ranks.rank)])]
    average(tensors, ranks)
    assert [tensor.flatten().tolist() for tensor in tensors] == [[0.5] * 4, [2.0]]
    assert ranks.same_text(f"of {ranks.rank}") == "of 0"


def fitted(
    config: TrainConfig, folder: Path, ranks: Ranks, *, resume: bool = False, told: Told | None = None
) -> FitResult:
    """A training with augmentation, of five iterations an epoch; the last batch has five samples."""
    config = replace(config, train_samples=4 * 32 + 5)
    dataset = replace(short_digits(), augmentation=Augmentation(pad=1, flip=False))
    return fit(config, dataset, folder, resume=resume, observer=told if ranks.first else None, ranks=ranks)


def trained(folder: Path, ranks: Ranks, *, interrupt: int = 0, resume: bool = False, sync: bool = True) -> FitResult:
    """A training of three epochs by implicit differentiation, with dropout."""
    told = Told(lambda done: signal.raise_signal(signal.SIGINT) if done == interrupt else None)
    config = changed(batch_size=32, sync_batch_norm=sync)
    return fitted(config, folder, ranks, resume=resume, told=told)


def new_folder(ranks: Ranks) -> Path:
    return Path(ranks.same_text(tempfile.mkdtemp(dir=sys.argv[1]) if ranks.first else ""))


def curves(result: FitResult, of_method: str = "train/adjoint_residual") -> list[list[float]]:
    names = ("train/loss", "test/loss", "train/firing_rate/population1", "train/accuracy", of_method)
    return [[metrics[name] for name in names] for metrics in result.history]


def check_training(ranks: Ranks) -> None:
    """Two processes and one give the same curve; the first alone writes.

    The tolerance: sums in another order change the last bits of potentials, and a spike that moves by it changes a rate
    by 1/6. Without synchronised statistics, or with masks of its own, a process's curve is off by 1e-3 and more.
    """
    folder = new_folder(ranks)
    shared = trained(folder, ranks)
    alone = trained(new_folder(ALONE), ALONE)
    assert_close(curves(shared), curves(alone), rtol=2e-4, atol=2e-4)
    assert sorted(p.name for p in folder.iterdir()) == ["best.safetensors", "last.safetensors"]
    metrics = load_checkpoint(folder / "last.safetensors").metrics
    assert (metrics["processes"], metrics["best_test_accuracy"]) == (2, shared.best_accuracy)
    own = trained(new_folder(ranks), ranks, sync=False)
    off = (torch.tensor(curves(own)) - torch.tensor(curves(alone))).abs().max()
    assert off > 1e-3, "this comparison can fail"


def spide_curves(folder: Path, ranks: Ranks, *, loss_scale: float = 100.0) -> list[list[float]]:
    """Of a training by SPIDE, with what its couples fire."""
    network = {"batch_norm": False, "v_threshold": 1.0, "spectral_norm": "frobenius"}
    network |= {"initial_weights": "kaiming_normal"}
    config = changed(network=network, batch_size=32, method="spide", learning_rate=0.3, loss_scale=loss_scale)
    return curves(fitted(config, folder, ranks), "train/backward_firing_rate/population1")


def check_spide(ranks: Ranks) -> None:
    """Couples are driven by the mean over the whole batch, so that they saturate and round as those of one process do.

    The tolerance is that of `check_training`. A process that took its share for the whole batch would drive its couples
    twice as strongly, as one process does with twice the scale.
    """
    shared, alone = spide_curves(new_folder(ranks), ranks), spide_curves(new_folder(ALONE), ALONE)
    assert_close(shared, alone, rtol=2e-4, atol=2e-4)
    twice = spide_curves(new_folder(ALONE), ALONE, loss_scale=200.0)
    off = (torch.tensor(twice) - torch.tensor(alone)).abs().amax(0)
    assert (off > 1e-3).all(), "this comparison can fail, in every figure"


def check_interruption(ranks: Ranks) -> None:
    """One process hears Ctrl-C, both stop after the same iteration; one process goes on where two were."""
    folder = new_folder(ranks)
    assert not trained(folder, ranks, interrupt=7).finished
    if ranks.first:
        _, progress, _ = load_training(folder / "last.safetensors")
        assert (progress["epoch"], progress["iteration"]) == (1, 3), "after the iteration in which both heard of it"
    rest = trained(folder, ALONE, resume=True) if ranks.first else None
    shared = trained(new_folder(ranks), ranks)
    if rest is not None:
        assert rest.finished
        assert_close(curves(rest), curves(shared), rtol=2e-4, atol=2e-4)


CHECKS = {name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")}

if __name__ == "__main__":
    here = ranks_of_environment()
    with joined(here, CPU):
        assert distributed.get_world_size() == 2
        for name in sys.argv[2:]:
            CHECKS[name](here)
    if here.first:
        print("checked", *sys.argv[2:])
