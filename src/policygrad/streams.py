"""Every random generator of a run, by name, from its one seed.

| stream         | what draws from it                                                        |
|----------------|---------------------------------------------------------------------------|
| `acting`       | the noise that actions are sampled with in training; index: the worker    |
| `environments` | the environments' own seeds; index: the steps done, where they begin anew |
| `order`        | which simulated worker pushes next                                        |
| `prediction`   | `Agent.predict`                                                           |
| `stored`       | which stored episodes are drawn                                           |
| `replay`       | which transitions of a replay buffer are drawn                            |
| `paths`        | the noise of pathwise gradients                                           |
| `weights`      | two numbers: the seeds of the policy's and the critic's first weights     |

Shuffles of minibatches have torch generators, seeded with the run's seed (update rules) and with that of the critic's weights.
"""

from __future__ import annotations

import numpy as np

ENTROPY = {
    "acting": (0,),
    "environments": (1,),
    "prediction": (1,),
    "stored": (2,),
    "replay": (3,),
    "paths": (4,),
    "order": (5,),
    "weights": None,
}


def stream(seed: int, name: str, *index: int) -> np.random.SeedSequence:
    """The entropy of a named stream; `numpy.random.default_rng` makes a generator of it, `seeds` whole numbers."""
    own = ENTROPY[name]
    return np.random.SeedSequence(seed if own is None else [seed, *own, *index])


def seeds(seed: int, name: str, count: int, *index: int) -> list[int]:
    """Whole numbers of 32 bits from a named stream, to seed others with. Those for `environments` are of 31, because simulators
    in C take a signed number.
    """
    largest = 2**31 - 1 if name == "environments" else 2**32 - 1
    return [int(x) & largest for x in stream(seed, name, *index).generate_state(count)]
