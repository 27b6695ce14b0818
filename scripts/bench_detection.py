"""How long it takes until a sweep learns that a worker or a node is gone, and until a fresh worker is up.

    python scripts/bench_detection.py                                       (Ray's own settings: about two minutes)
    RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=3 \\
        python scripts/bench_detection.py                                    (a node that hangs, sooner)

Nodes are processes of this machine (`ray.cluster_utils.Cluster`). "Hangs" is SIGSTOP of a node's processes: the machine
answers no more, and no connection breaks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RayError

_NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@ray.remote(num_cpus=1)
class Worker:
    """Something that runs."""

    def pid(self) -> int:
        return os.getpid()

    def work(self) -> None:
        time.sleep(3600)


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        for what in ("worker killed", "node killed", "node hangs"):
            node = cluster.add_node(**_NODE)
            cluster.wait_for_nodes()
            began = time.monotonic()
            worker: Any = Worker.remote()
            pid = ray.get(worker.pid.remote())
            up = time.monotonic() - began
            work = worker.work.remote()
            time.sleep(6)  # beyond the time that a node has before its first check
            stopped = _break(cluster, node, pid, what)
            began = time.monotonic()
            with contextlib.suppress(RayError):
                ray.get(work)
            print(f"{what:14}  noticed after {time.monotonic() - began:5.1f} s  (a fresh worker was up in {up:.1f} s)")
            for each in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            if what != "node killed":
                cluster.remove_node(node, allow_graceful=False)
    finally:
        ray.shutdown()
        cluster.shutdown()


def _break(cluster: Cluster, node: Any, pid: int, what: str) -> list[int]:
    """Breaks it; gives the processes that stand still since."""
    if what == "worker killed":
        os.kill(pid, signal.SIGKILL)
    elif what == "node killed":
        cluster.remove_node(node, allow_graceful=False)
    else:
        raylet = node.all_processes["raylet"][0].process.pid
        for each in (raylet, pid):
            os.kill(each, signal.SIGSTOP)
        return [raylet, pid]
    return []


if __name__ == "__main__":
    main()
