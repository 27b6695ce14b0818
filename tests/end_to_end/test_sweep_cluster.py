"""A sweep over the nodes of a cluster that loses some of them: one killed, one worker killed, one preempted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from atmc_search import load_trials
from atmc_search.results import RunFolder
from atmc_search.spec import StudySpec, dump_yaml

MakeStudy = Callable[..., StudySpec]
TRIALS, EPOCHS = 6, 80
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster(user_modules: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("PYTHONPATH", f"{user_modules}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    head = {**NODE, "num_cpus": 0, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


def test_a_sweep_outlives_nodes_and_workers(
    cluster: Cluster, toy_study: MakeStudy, tmp_path: Path, log: Callable[[], list[str]]
) -> None:
    first, second = cluster.add_node(**NODE), cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    spec = toy_study(trials=TRIALS, modes=",".join(["slow"] * TRIALS), epochs=EPOCHS, cpu=1)
    (tmp_path / "toys.yaml").write_text(dump_yaml(spec))
    command = [sys.executable, "-m", "atmc_search", "run", "toys.yaml", "--address", cluster.address]

    def epochs() -> list[tuple[int, int, int]]:
        """Trial, epoch and process of every epoch that was done."""
        lines = [line.split() for line in log() if line.startswith("epoch")]
        return [(int(trial), int(epoch), int(pid)) for _, trial, epoch, pid in lines]

    with (tmp_path / "said").open("w") as said:
        driver = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=said, start_new_session=True)

        def wait(until: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 180
            while not until():
                assert driver.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < deadline, (tmp_path / "said").read_text()
                time.sleep(0.05)

        def losses() -> list[tuple[str, str]]:
            """Trial and its failures so far, for every worker that the driver said was lost."""
            found = r"^trial (\d+) lost its worker .* \(failures: (\d+),"
            return re.findall(found, (tmp_path / "said").read_text(), re.MULTILINE)

        try:
            wait(lambda: len({trial for trial, *_ in epochs()}) >= 2)  # on both nodes
            cluster.remove_node(first, allow_graceful=False)
            wait(lambda: len(losses()) == 1)
            cluster.add_node(**NODE)
            before = len(epochs())
            wait(lambda: len({pid for *_, pid in epochs()[before:]}) >= 2)
            os.kill(epochs()[-1][2], signal.SIGKILL)
            wait(lambda: len(losses()) == 2)
            before = len(epochs())
            wait(lambda: len({pid for *_, pid in epochs()[before:]}) >= 2)
            preempt(cluster, second)
            wait(lambda: len(losses()) == 3)
            (tmp_path / "log.fast").touch()
            code = driver.wait(240)
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
    assert code == 0, (tmp_path / "said").read_text()

    folder = RunFolder(tmp_path / "runs" / spec.name)
    assert load_trials(folder.path)["state"].tolist() == ["complete"] * TRIALS
    reports = folder.read_reports()
    for _, rows in reports.groupby("trial"):
        assert rows["epoch"].tolist() == list(range(EPOCHS + 1))
    again = Counter((trial, epoch) for trial, epoch, _ in epochs())
    assert len(again) == TRIALS * EPOCHS
    assert sum(again.values()) - len(again) <= 3  # at most the epoch that each lost worker was in
    assert sum(int(count) for count in dict(losses()).values()) == 2  # the preempted node's does not count


def preempt(cluster: Cluster, node: object) -> None:
    """What a cloud's notice of two minutes is to Ray, in short: drained for preemption, gone after the deadline."""
    deadline = int(1000 * (time.time() + 0.5))
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=cluster.address).drain_node(node.node_id, reason, "spot", deadline)  # type: ignore[attr-defined]
    assert accepted, why
    time.sleep(1)
    cluster.remove_node(node, allow_graceful=False)
