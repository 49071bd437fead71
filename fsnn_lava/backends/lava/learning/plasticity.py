"""The learning rule: how a connection changes its own weights, from what arrived at it and nothing else.

    trace of what is sent      a_j = sum_t leak^(T-1-t) s_j[t] / sum_t leak^(T-1-t)
    trace of what comes back   e_i = the same of m_i p_i over the backward phase, which is m_i beta_i
    local product              dL/dw_ij = e_i a_j / (r * loss_scale);  dL/db_i = e_i / (r * loss_scale)

(SPIDE paper, the local update.) The products of a batch's samples, shown one after the other, are added up; then the
connection takes a step of momentum SGD by itself, g <- gradient + weight_decay w, m <- momentum m + g, w <- w - rate m.
"""

import numpy as np

from fsnn_lava.backends.lava.learning.job import TrainingJob
from fsnn_lava.backends.lava.learning.memory import SynapseRecord
from fsnn_lava.errors import ConvergenceError
from fsnn_lava.hardware import Array


class Trace:
    """Leak-weighted mean of what arrives in a window of so many steps."""

    def __init__(self, size: int, *, steps: int, leak: float) -> None:
        self._sum = np.zeros(size)
        self._leak = leak
        self._total = float(steps) if leak == 1.0 else (1.0 - leak**steps) / (1.0 - leak)

    def clear(self) -> None:
        """Begin a new window."""
        self._sum[:] = 0

    def add(self, message: Array) -> None:
        """Take a step's message."""
        if self._leak != 1.0:
            self._sum *= self._leak
        self._sum += message

    def mean(self) -> Array:
        """The mean, once the window has closed."""
        return self._sum / self._total


class LocalSGD:
    """Momentum SGD of one connection's weights, in place.

    Parameters
    ----------
    name : of the connection, for messages.
    weight : (n_out, n_in) values and momentum, changed by every update.
    bias : (n_out,), likewise; None without a bias.
    job : how to learn; samples and rate of each update.
    record : where the outcome of each update is written.
    """

    def __init__(
        self,
        name: str,
        weight: tuple[Array, Array],
        bias: tuple[Array, Array] | None,
        *,
        job: TrainingJob,
        record: SynapseRecord,
    ) -> None:
        self._name, self._weight, self._bias, self._job, self._record = name, weight, bias, job, record
        self._gradient = np.zeros_like(weight[0])
        self._bias_gradient = np.zeros(len(weight[0]))
        self._update, self._taken = 0, 0

    @property
    def batch_size(self) -> int:
        """Samples of the batch that is being shown."""
        return self._job.batches[self._update]

    def learn(self, error: Array, rate: Array) -> bool:
        """Add a sample's local product; tell whether it was the last of its batch, so that the weights have changed.

        Parameters
        ----------
        error : (n_out,) derivative of the batch's mean loss with respect to each target's current.
        rate : (n_in,) mean of what each source sent.

        Raises
        ------
        ConvergenceError : if a weight is no longer finite.
        """
        self._gradient += np.outer(error, rate)
        self._bias_gradient += error
        self._taken += 1
        if self._taken < self.batch_size:
            return False
        self._step(*self._weight, self._gradient)
        if self._bias is not None:
            self._step(*self._bias, self._bias_gradient)
        self._record.write(
            (*self._weight, self._gradient), None if self._bias is None else (*self._bias, self._bias_gradient)
        )
        self._gradient[:] = 0
        self._bias_gradient[:] = 0
        self._update, self._taken = self._update + 1, 0
        return True

    def _step(self, values: Array, momentum: Array, gradient: Array) -> None:
        """One step of one array."""
        momentum *= self._job.learning.momentum
        momentum += gradient
        momentum += self._job.learning.weight_decay * values
        values -= self._job.learning_rates[self._update] * momentum
        if not np.isfinite(values).all():
            raise ConvergenceError(
                f"{self._name}: weights that are not finite after update {self._update + 1}; what they were before it "
                "is kept; train anew with a lower training.learning_rate, or with training.warmup_iterations"
            )


def restriction(weight: Array, bound: float) -> float:
    """The factor min(1, bound / ||w||) that keeps a weight's Frobenius norm at most at the bound."""
    norm = float(np.linalg.norm(weight))
    return min(1.0, bound / norm) if norm > 0 else 1.0
