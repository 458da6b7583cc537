"""Where shards are enriched: in this process, or by Ray Data actors. The work itself is the same code."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pickle  # what is unpickled here, this run's own driver or workers pickled
import socket
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DaedalusError, ExecutionError
from daedalus.pipelines.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    import pyarrow as pa

    from daedalus.pipelines.enrich.plan import EnrichPlan
    from daedalus.pipelines.enrich.shards import ShardEnricher, ShardReport, ShardTask
    from daedalus.pipelines.settings import TrainingRunConfig

GIB = 1 << 30
_OBJECT_STORE_BYTES = 200 << 20
_MAX_CACHE_BYTES = 2 * GIB
_ATTEMPTS = 2
_ANSWER_SECONDS = 10.0
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this process may use: the machine, or the container's share of it."""

    cpus: int
    memory_bytes: int

    @classmethod
    def here(cls) -> Machine:
        """Read from the scheduler, /proc and the control group."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        quota = _numbers("/sys/fs/cgroup/cpu.max")
        if len(quota) == 2:
            cpus = min(cpus, max(1, quota[0] // quota[1]))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            memory = min([memory, *_numbers(limit)])
        return cls(cpus=cpus, memory_bytes=memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEnvelope:
    """What an enrichment may take.

    Attributes:
        num_cpus: workers at most.
        memory_bytes: memory of all workers together, by which their vector caches are sized.
        address: a running cluster, as `ray.init(address=...)` takes it; None starts a session here.
    """

    num_cpus: int = 16
    memory_bytes: int = 64 * GIB
    address: str | None = None

    def configured(self, config: TrainingRunConfig) -> RayEnvelope:
        """The envelope with what the settings say about Ray."""
        return replace(
            self,
            num_cpus=self.num_cpus if config.ray_num_cpus is None else config.ray_num_cpus,
            address=self.address if config.ray_address is None else config.ray_address,
        )

    def fitted(self, machine: Machine) -> tuple[RayEnvelope, str]:
        """The envelope cut to `machine`, and a line that says so; the line is empty when nothing was cut.

        >>> RayEnvelope().fitted(Machine(cpus=2, memory_bytes=24 * GIB))[1]
        'Ray may take 16 CPUs and 64.0 GiB; this machine has 2 and 24.0 GiB, so it takes 2 and 24.0 GiB'
        """
        cut = replace(
            self,
            num_cpus=max(1, min(self.num_cpus, machine.cpus)),
            memory_bytes=min(self.memory_bytes, machine.memory_bytes),
        )
        if self.address or cut == self:
            return self, ""
        return cut, (
            f"Ray may take {self.num_cpus} CPUs and {self.memory_bytes / GIB:.1f} GiB; this machine has "
            f"{machine.cpus} and {machine.memory_bytes / GIB:.1f} GiB, so it takes {cut.num_cpus} and "
            f"{cut.memory_bytes / GIB:.1f} GiB"
        )

    def cache_bytes(self, workers: int) -> int:
        """Memory for vectors in each of `workers` workers: a quarter of its share, 2 GiB at most."""
        return min(_MAX_CACHE_BYTES, self.memory_bytes // max(1, workers) // 4)


def run_in_process(plan: EnrichPlan, tasks: Sequence[ShardTask]) -> Generator[ShardReport]:
    """Make the shards here, one after the other."""
    from daedalus.pipelines.enrich.shards import ShardEnricher

    enricher = ShardEnricher(plan)
    for task in tasks:
        yield enricher.run(task)


def run_on_ray(plan: EnrichPlan, tasks: Sequence[ShardTask], workers: int) -> Generator[ShardReport]:
    """Make the shards in a pool of Ray Data actors; reports come in the order of `tasks`.

    Each actor reads its shard's rows and writes its file, so no column passes through Ray's object store: the
    dataset that Ray sees is the list of shards.

    Args:
        plan: what to do.
        tasks: the shards; their files must be reachable from every node.
        workers: actors.

    Raises:
        ExecutionError: what a worker raised, or that one died.
    """
    import pyarrow as pa

    blocks = [pa.table({"task": [pickle.dumps(task)]}) for task in tasks]
    with _quiet():
        import ray
        from ray.data import ActorPoolStrategy, DataContext

        # Importing ray.data configures it, so it is quietened after that.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        dataset = ray.data.from_arrow(blocks).map_batches(
            _Actor,
            fn_constructor_args=(ray.cloudpickle.dumps(plan), list(sys.path)),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=workers),
            num_cpus=1,
        )
        batches = iter(dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0))
    try:
        while True:
            with _quiet(), _ray_errors():
                batch = next(batches, None)
            if batch is None:
                return
            outcome = pickle.loads(batch.column("outcome")[0].as_py())  # noqa: S301 - see the import
            if isinstance(outcome, DaedalusError):
                raise outcome
            yield outcome
    finally:
        # Left to the garbage collector it would end after the session, and start another to say so.
        with _quiet():
            batches.close()


class _Actor:
    """`ShardEnricher` behind Ray Data: a shard in, its report or its error out, as data.

    An error that Ray carries would be retried, logged and wrapped; as data it arrives as it was raised.
    """

    def __init__(self, plan: bytes, path: list[str]) -> None:
        sys.path.extend(entry for entry in path if entry not in sys.path)
        self._plan = plan
        self._enricher: ShardEnricher | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        import pyarrow as pa

        outcomes = [pickle.dumps(self._outcome(task.as_py())) for task in batch.column("task")]
        return pa.table({"outcome": pa.array(outcomes, pa.binary())})

    def _outcome(self, pickled: bytes) -> ShardReport | DaedalusError:
        from daedalus.pipelines.enrich.shards import ShardEnricher

        try:
            task: ShardTask = pickle.loads(pickled)  # noqa: S301 - see the import
            if self._enricher is None:
                self._enricher = ShardEnricher(pickle.loads(self._plan))  # noqa: S301 - see the import
            with _counted_attempt(task):
                return self._enricher.run(task)
        except DaedalusError as error:
            return error
        except Exception as problem:  # noqa: BLE001 - the driver raises it
            return ExecutionError(f"an enrichment worker failed: {type(problem).__name__}: {problem}")


@contextlib.contextmanager
def _counted_attempt(task: ShardTask) -> Iterator[None]:
    """Ray starts a dead worker anew without end; a shard that kills its worker twice is given up."""
    marker = Path(task.folder) / f".attempts-{task.index}"
    with marker.open("ab") as file:
        file.write(b"1")
    if marker.stat().st_size > _ATTEMPTS:
        raise ExecutionError(
            f"the Ray worker that made rows {task.start} to {task.stop} died {_ATTEMPTS} times",
            hint="When memory ran out, fewer workers (--ray-num-cpus) leave more to each",
            day=task.day,
        )
    yield
    marker.unlink()


def ensure_ray(envelope: RayEnvelope | None = None) -> None:
    """Start the run's Ray session unless there is one; it ends with the process, or with `ray_session`.

    Args:
        envelope: what it may take; the documents' 16 CPUs and 64 GiB when left out, cut to this machine.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with _quiet():
        import ray

        if ray.is_initialized():
            return
        asked = envelope or RayEnvelope()
        fitted, _ = asked.fitted(Machine.here())
        if asked.address:
            _require_answer(asked.address)
            settings: dict[str, Any] = {"address": asked.address}
        else:
            stack = contextlib.ExitStack()
            folder = str(stack.enter_context(scratch_folder(Path(tempfile.gettempdir()), "daedalus-ray-")))
            atexit.register(stack.close)
            settings = {
                "num_cpus": fitted.num_cpus,
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_temp_dir": folder,
            }
        try:
            with _native_stderr_closed():
                ray.init(logging_level=logging.ERROR, log_to_driver=False, **settings)
        except (ConnectionError, OSError, RuntimeError, ValueError) as problem:
            raise ExecutionError(
                f"Ray does not start: {problem}",
                where=asked.address or "this machine",
                hint="Check --ray-address, or set enrich_runtime: in_process",
            ) from problem
        atexit.register(ray.shutdown)
        logging.getLogger("ray").setLevel(logging.ERROR)
        # A thread of Ray's prints what happens in the cluster on standard output, where results go.
        if hasattr(ray._private.worker, "_worker_logs_enabled"):
            ray._private.worker._worker_logs_enabled = False


def _require_answer(address: str) -> None:
    """Raise ExecutionError when nothing listens at `host:port`: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as problem:
        raise ExecutionError(
            f"no Ray cluster answers: {problem.strerror or problem}",
            where=address,
            hint="Check --ray-address: it is the address of the head node, port 6379 by default",
        ) from problem


@contextlib.contextmanager
def ray_session(envelope: RayEnvelope | None = None) -> Iterator[None]:
    """A Ray session for the block; one that was there before is used and left running."""
    with _quiet():
        import ray

    was_there = ray.is_initialized()
    ensure_ray(envelope)
    try:
        yield
    finally:
        if not was_there:
            with _quiet():
                ray.shutdown()


def ray_workers(envelope: RayEnvelope, shards: int) -> int:
    """Actors for `shards` shards: one per CPU that the session has and the envelope allows."""
    import ray

    available = int(ray.cluster_resources().get("CPU", 1))
    return max(1, min(envelope.num_cpus, available, shards))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray's deprecations of its own code are not the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Ray's C++ part greets on descriptor 2 whatever its log level; what matters it raises."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _ray_errors() -> Iterator[None]:
    import ray

    try:
        yield
    except ray.exceptions.RayError as problem:
        raise ExecutionError(
            f"Ray failed: {str(problem).strip().splitlines()[-1]}",
            hint="Finished days are kept: run it again, or set enrich_runtime: in_process",
        ) from problem


def _numbers(path: str) -> list[int]:
    """The integers of a control file; empty when it is absent or says `max`."""
    try:
        return [int(word) for word in Path(path).read_text().split()]
    except (OSError, ValueError):
        return []
