"""The replicas, kept alive by Ray Serve: on the cluster that Ray's own environment names, else on an embedded Ray.

Serve's own HTTP proxy is not used: where a replica dies, it answers a bare 500 without a type or Retry-After. Here the
process that speaks HTTP asks the replicas itself, so it can tell what happened, and nothing between the two can die.
"""

import asyncio
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import exceptions, serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from model.serving.errors import Fault, RequestError
from model.serving.replica import Replica
from pipeline.errors import NotOpened, PipelineError
from pipeline.ray_executor import running_ray
from pipeline.storage import absolute_root

log = logging.getLogger("pipeline")

HEALTH_PERIOD_S = 1.0  # how often Serve looks for a replica that is to be replaced
SPARE = 8  # calls beside the requests, so that a full replica still says that it is there
QUIET = {"log_level": "WARNING", "enable_access_log": False}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """name: of the application; one of that name on the cluster is replaced. cpus: of each replica; None: an equal
    share of this machine's, or one of a cluster's."""

    name: str
    checkpoint: str
    index: str | None
    replicas: int
    cpus: float | None
    requests: int  # at once, of all replicas
    other_encoder: bool = False  # whether the index may have keys by another encoder than the model learned with


@dataclass(frozen=True)
class Replicas:
    handle: DeploymentHandle

    async def ask(self, method: str, *arguments: Any) -> Any:
        """A method of Replica. Raises what it raises of PipelineError, and RequestError where none could answer."""
        response = getattr(self.handle, method).remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except exceptions.RayTaskError as error:
            if isinstance(error.cause, PipelineError):
                raise error.cause from None
            raise
        except (exceptions.RayError, RayServeException) as error:
            log.warning("a replica did not answer: %s", type(error).__name__)
            told = "the replica that had the request was lost, or there is none; ask again"
            raise RequestError(Fault.UNAVAILABLE, told) from None


@contextmanager
def replicas_of(deployment: Deployment) -> Iterator[Replicas]:
    """They run when this begins, and are gone when it ends. Raises NotOpened where none can be started."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with running_ray(cpus=None):
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        try:
            yield Replicas(_run(deployment))
        finally:
            if os.environ.get("RAY_ADDRESS"):  # an embedded Ray ends as a whole
                serve.delete(deployment.name)
                if not serve.status().applications:  # else others of the cluster use it
                    serve.shutdown()


def _run(deployment: Deployment) -> DeploymentHandle:
    options = _options(deployment)
    replica = serve.deployment(
        Replica,
        name="replica",
        num_replicas=deployment.replicas,
        max_ongoing_requests=deployment.requests + SPARE,
        health_check_period_s=HEALTH_PERIOD_S,
        ray_actor_options=options,
        logging_config=QUIET,
    )
    roots = (absolute_root(root) if root else None for root in (deployment.checkpoint, deployment.index))
    threads = max(1, math.floor(options["num_cpus"]))
    try:
        bound = replica.bind(*roots, threads=threads, other_encoder=deployment.other_encoder)
        return serve.run(bound, name=deployment.name, route_prefix=None)
    except RuntimeError as error:
        raise NotOpened(f"no replica could be started: {error}") from None


def _options(deployment: Deployment) -> dict[str, float]:
    """An embedded Ray cannot grow, so there replicas get no more than the machine has. GPUs where the cluster has some,
    shared where it has fewer than replicas."""
    total = ray.cluster_resources()
    share = total.get("CPU", 1) / deployment.replicas
    cpus = (deployment.cpus or 1) if os.environ.get("RAY_ADDRESS") else min(deployment.cpus or share, share)
    gpus = min(1.0, total.get("GPU", 0) / deployment.replicas)
    return {"num_cpus": cpus} | ({"num_gpus": gpus} if gpus else {})
