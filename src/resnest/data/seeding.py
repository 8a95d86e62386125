"""Randomness that depends on whole numbers alone.

with seeded(seed, epoch, index): torch.rand(1)
"""

from __future__ import annotations

import numpy as np
import torch


class seeded:
    """Within it, torch's CPU generator starts from the given whole numbers; afterwards it is as before.

    Gives the seed that it makes of them, for other generators.
    """

    def __init__(self, *numbers: int) -> None:
        self.seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)

    def __enter__(self) -> int:
        self.before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self.seed)  # torch.manual_seed would wake up CUDA in a worker
        return self.seed

    def __exit__(self, *_: object) -> None:
        torch.default_generator.set_state(self.before)
