"""The steps of a sample. Everything in the graph counts them by itself, from Lava's clock.

With N populations, T forward and K backward steps, sample b has Lava's steps 1 + b * sample_steps + g, g from 0:

    forward    what is sent at g arrives at g + 1, so population l integrates in [l, l + T); the input is sent in [0, T)
    turn       g = N + T: the readout has seen the last spike of population N, and injects the error from now on
    backward   population l integrates in [N + T + N - l, N + T + N - l + K)
    learning   after the last step, when the last couple's spike of population 1 has arrived at its connections

So a spike of the last population reaches the first one N steps later by that one's own count, and a couple's spike
of the first population the last one likewise: the loop delay is N in both phases. Forward spikes travel before the
turn alone, couples' spikes after it alone; at each sample's first step nothing is in flight.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """When things happen within a sample.

    Parameters
    ----------
    populations : N.
    time_steps, time_steps_back : T and K.
    """

    populations: int
    time_steps: int
    time_steps_back: int

    @property
    def turn(self) -> int:
        """First step of the backward phase."""
        return self.populations + self.time_steps

    @property
    def sample_steps(self) -> int:
        """Steps that a sample takes."""
        return self.turn + self.populations - 1 + self.time_steps_back

    def at(self, lava_step: int) -> tuple[int, int]:
        """Sample and step within it, both from 0, of a step of Lava, which counts from 1."""
        return divmod(lava_step - 1, self.sample_steps)

    def is_last(self, lava_step: int) -> bool:
        """Tell whether it is the last step of a sample."""
        return lava_step % self.sample_steps == 0

    def in_forward_window(self, population: int, step: int) -> bool:
        """Tell whether a population (from 1; 0 is the input) integrates in that step, or the input is sent."""
        return 0 <= step - population < self.time_steps

    def in_backward_window(self, population: int, step: int) -> bool:
        """Tell whether the couples of a population integrate in that step."""
        return 0 <= step - self.backward_start(population) < self.time_steps_back

    def backward_start(self, population: int) -> int:
        """First step in which the couples of a population integrate."""
        return self.turn + self.populations - population
