"""Ray for the time of a sweep: the user's cluster, or one of this machine's cores, set up to be quiet."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.ray_logging import stdout_deduplicator
from ray._private.services import canonicalize_bootstrap_address

from atmc_search.errors import RunError, SpecError
from atmc_search.search.trainable import no_cuda
from atmc_search.spec import ResourcesSpec

_ANSWER_S = 10.0
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output engine prints a line even when told to be quiet
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a lost worker is a line of ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `stopping` has its own
}
_DEFAULTS = {
    # Two pending trials: the older may take over a finished trial's actor while the younger's own still comes up.
    "TUNE_MAX_PENDING_TRIALS_PG": "2",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def check_address(address: str) -> None:
    """Passes if a program listens at a cluster's address: Ray itself would go on trying for minutes.

    Raises:
        RunError: none does.
    """
    if address == "local":
        return
    _, client, place = address.rpartition("ray://")
    try:
        where = place if client else canonicalize_bootstrap_address(address)
        host, _, port = str(where).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, ValueError) as error:
        raise _no_answer(address, error) from None


@contextmanager
def ray_for(resources: ResourcesSpec, address: str, cpus: int | None) -> Iterator[None]:
    """Ray up, quiet, and checked for the resources that one trial needs; down again if it was started here.

    Args:
        resources: of one trial.
        address: of a cluster; "local" starts one here.
        cpus: cores of one that is started here; None: all.

    Raises:
        RunError: no cluster answers.
        SpecError: a trial needs more than there is here.
    """
    os.environ.update(_SETTINGS)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"include_dashboard": False, "num_cpus": cpus} if address == "local" else {}
    # Ray starts idle workers at once; with the imports done there, an actor is up in a moment. Without, a second actor
    # never came up in sweeps of short trials: the pending trial took over the first one's actor every time.
    options["runtime_env"] = {"worker_process_setup_hook": "atmc_search.search.trainable.warm_up"}
    began_here = not ray.is_initialized()
    if began_here:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # Ray raises plain ones, too, where a machine is too busy to start it in time
            raise _no_answer(address, error) from None
        except BaseException:  # a signal: what came up by then goes
            ray.shutdown()
            raise
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # "Trials did not complete": they are rows
    # Losses are lines of ours; these are pages.
    stdout_deduplicator.skip_re = re.compile("A worker died or was killed|Raylet is terminated")
    try:
        have = ray.cluster_resources()
        for name, wanted in (("CPU", resources.cpu), ("GPU", resources.gpu)):
            if wanted > have.get(name, 0) and address == "local":
                raise SpecError(
                    f"resources.{name.lower()} = {wanted:g}: there are {have.get(name, 0):g} here, so no trial could "
                    f"start; ask for at most that, or give a cluster by --address"
                )
        if address == "local" and (reason := no_cuda(resources)):
            raise SpecError(reason)
        yield
    finally:
        if began_here:
            ray.shutdown()


def _no_answer(address: str, error: Exception) -> RunError:
    reason = " ".join(str(error).split())[:200]
    remedy = "run it again" if address == "local" else "check the address, and that the cluster is up"
    return RunError(f"--address {address}: Ray does not answer there ({reason}); {remedy}")
