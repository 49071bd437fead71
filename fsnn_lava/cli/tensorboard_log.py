"""Training metrics as TensorBoard scalars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter  # type: ignore[attr-defined]


class TensorBoardLog:
    """An observer of a training that writes each epoch's metrics into the run's folder, until it is closed."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def iteration(self, *, epoch: int, done: int, total: int, loss: float) -> None:
        """Write the mean loss of the epoch so far, about a hundred times per epoch."""
        if done % max(1, total // 100) == 0:
            self._writer.add_scalar("iteration/loss", loss, epoch * total + done)

    def epoch(self, *, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write every metric of the epoch."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Write what is still under way."""
        self._writer.close()
