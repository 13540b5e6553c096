"""One thread: small matrices, two cores shared by the test workers, and the same bits every time."""

import torch
from threadpoolctl import threadpool_limits

torch.set_num_threads(1)
THREADS = threadpool_limits(limits=1)
