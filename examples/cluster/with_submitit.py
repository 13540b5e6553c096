"""The shards of a `policygrad` command as SLURM jobs, with submitit.

    python with_submitit.py 8 --folder /shared/logs -- compare ppo a2c --env Acrobot-v1 --seeds 20 --runs-root /shared/runs

Every job trains the runs that no other job has, as docs/cluster.md says. One that is preempted, or reaches its time limit, is
queued again by submitit, and goes on from its last checkpoints. `--cluster local` runs the jobs as processes of this machine,
to try it out.
Needs `pip install submitit`; the directories must be the same ones on all nodes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit


@dataclass(frozen=True)
class Shard:
    """A job: one shard of the work."""

    words: tuple[str, ...]
    index: int
    count: int

    def __call__(self) -> None:
        shard = f"{self.index}/{self.count}"
        with subprocess.Popen([sys.executable, "-m", "policygrad", *self.words, "--shard", shard]) as process:
            try:
                code = process.wait()
            finally:  # where submitit ends this process, to queue it again, runs are saved and left to other shards
                process.terminate()
        if code:
            raise RuntimeError(f"policygrad ended with exit code {code}: see the messages above")

    def checkpoint(self) -> Any:
        """What submitit queues in place of a job that is preempted: the same one, since runs are resumed by themselves."""
        return submitit.helpers.DelayedSubmission(self)


def submit(words: Sequence[str], count: int, folder: Path, cluster: str | None = None, **parameters: Any) -> list[Any]:
    """The jobs, submitted as one array. parameters: of `submitit.AutoExecutor.update_parameters`."""
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    executor.update_parameters(name="policygrad", **parameters)
    with executor.batch():
        return [executor.submit(Shard(tuple(words), index, count)) for index in range(count)]


def main() -> None:
    """Submit, and say where the jobs' messages are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="number of jobs")
    parser.add_argument("--folder", type=Path, default=Path("logs"), help="for the jobs' messages [logs]")
    parser.add_argument("--cluster", choices=("slurm", "local"), help="default: what there is")
    parser.add_argument("--minutes", type=int, default=240, help="time limit of a job [240]")
    parser.add_argument("--cores", type=int, default=8, help="per job: that many runs at the same time [8]")
    parser.add_argument("--partition", help="of the SLURM cluster")
    parser.add_argument("words", nargs="+", help="after --: compare, sweep or train, and its arguments")
    given = parser.parse_args()
    more = {"slurm_partition": given.partition} if given.partition else {}
    jobs = submit(
        given.words,
        given.count,
        given.folder,
        given.cluster,
        timeout_min=given.minutes,
        cpus_per_task=given.cores,
        **more,
    )
    for job in jobs:
        print(f"job {job.job_id}: {job.paths.stdout}")
    if given.cluster == "local":
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main()
