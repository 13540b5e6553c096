"""One thread: small matrices, two cores shared by the test workers, and the same bits every time."""

import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

torch.set_num_threads(1)
THREADS = threadpool_limits(limits=1)

settings.register_profile("fixed", derandomize=True, deadline=None)  # the same examples in every run
settings.load_profile("fixed")
