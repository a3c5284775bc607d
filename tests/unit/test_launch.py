"""What a failed training says: the worker's own message, or a sentence about the machines."""

import pytest
import ray.exceptions
import ray.train
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError, WorkerHealthCheckFailedError

from cluster.errors import DataError, RaymillError, ResourceError
from trainer.training.launch import failure_cause, health_check_s


def test_a_workers_own_message_comes_first():
    died = ray.exceptions.RayActorError()
    error = ray.train.WorkerGroupError("failed", {0: died, 1: DataError("the rows", "other rows")})
    assert str(failure_cause(error)) == "the rows\n  fix: other rows"


def test_workers_that_died():
    died = WorkerHealthCheckFailedError("a health check failed", ray.exceptions.RayActorError())
    error = ray.train.WorkerGroupError("failed", {0: RuntimeError("gloo"), 1: died})
    cause = failure_cause(error)
    assert isinstance(cause, RaymillError)
    assert "died more often than train.max_failures allows" in str(cause)


def test_no_place_for_the_workers():
    cause = failure_cause(ray.train.ControllerError(WorkerGroupStartupTimeoutError(3)))
    assert isinstance(cause, ResourceError)
    assert "room for 3 workers, but other work holds it" in cause.problem


@pytest.mark.parametrize("error", [RuntimeError("a library's own"), ValueError("another")])
def test_any_other_error_is_named(error):
    assert str(failure_cause(error)).startswith(f"training failed: {type(error).__name__}: ")


@pytest.mark.parametrize(("workers", "seconds"), [(1, 0.5), (64, 0.5), (128, 1.0), (256, 2.0), (1024, 2.0)])
def test_many_workers_are_asked_less_often(workers, seconds):
    assert health_check_s(workers) == seconds
