"""Another engine on many machines: copies of a model as actors of a Ray cluster, each of which answers a shard at a time."""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Optional

from mlops_llm import component as table
from mlops_llm import console
from mlops_llm.component import component
from mlops_llm.errors import UserError
from mlops_llm.inference.engine import Care, Failure, Generation, Request, Sampling, Session
from mlops_llm.inference.engines.vllm import Vllm
from mlops_llm.launch import cluster
from mlops_llm.models.load import Files, ModelLoad

_ENGINES = "mlops_llm.inference.engines"
_LIVES = 3
"""Times that a worker is started again, and that a shard is asked again."""
_CLOSING = 20.0
Job = tuple[str, tuple[Any, ...]]
"""A method of a worker, and its arguments."""


@component("engine", "ray")
@dataclass
class OverRay:
    """Another engine as workers of a Ray cluster (RAY_ADDRESS): for many answers and several machines; on one it only loses.

    Each worker opens the model, so its files must be on a disk that all nodes share. A worker that dies is started again, and
    what it was asked is asked again. Answers are those of the engine itself: what is known of it is known here.
    """

    engine: str = "vllm"
    """The engine of each worker: vllm, hf or llamacpp."""
    settings: Any = None
    """Its settings, such as 'engine.settings={kv_cache_gb: 4}' (in quotes)."""
    workers: Optional[int] = None  # noqa: UP045 (OmegaConf reads Optional)
    """Copies of the model; null is as many as the cluster's GPUs hold, or one a node where it has none."""
    cpus: float = 1.0
    """Processor cores that each reserves."""
    shard: int = 256
    """Requests that a worker is given at once, at most."""
    start_timeout: float = 900.0
    """Seconds in which the first worker must have opened the model."""

    local: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the ranges and the engine's own settings."""
        for name, least in (("workers", 1), ("shard", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"is {value}", f"engine.{name}", f"give a whole number from {least}")
        for name in ("cpus", "start_timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"is {getattr(self, name)}", f"engine.{name}", "give a number above 0")
        if self.settings is not None and not isinstance(self.settings, Mapping):
            raise UserError("is no mapping", "engine.settings", "write it as 'engine.settings={max_model_len: 2048}'")
        if isinstance(self.inner, OverRay) or not self.inner.local:
            remedy = "take vllm, hf or llamacpp"
            raise UserError(f"is {self.engine}, which opens no model of its own", "engine.engine", remedy)

    @cached_property
    def inner(self) -> Any:
        """The engine of a worker.

        Raises:
            UserError: there is none of this name, or its settings are wrong.
        """
        table.load(_ENGINES)
        return table.build("engine", self.engine, self.settings)

    @property
    def family(self) -> str:
        """That of its workers: they answer as they would alone."""
        return str(self.inner.family)

    @property
    def decisive(self) -> Mapping[str, Any]:
        """That of its workers."""
        found: Mapping[str, Any] = self.inner.decisive
        return found

    def check(self) -> None:
        """See that Ray is installed, and its cluster answers; what the workers need is seen by them.

        Raises:
            UserError: it does not.
        """
        cluster.check("engine")

    @contextmanager
    def open(self, files: Files | None, how: ModelLoad, tokenizer: Any, window: int | None) -> Iterator[Session]:
        """Have the workers open the model; the first that has is enough to begin.

        Raises:
            UserError: a worker cannot open it, or the cluster has no room for one.
        """
        with cluster.joined() as ray:
            gpus = self._gpus(ray)
            count = self._count(ray, gpus)
            worker = ray.remote(
                num_cpus=self.cpus, num_gpus=gpus, max_restarts=_LIVES, max_task_retries=_LIVES, scheduling_strategy="SPREAD"
            )(_Worker)
            workers = [worker.remote(self.inner, files, how, tokenizer, window) for _ in range(count)]
            console.detail(f"opening the model in {count} worker{'s' if count > 1 else ''} of {self.engine}")
            try:
                with _told():
                    session = _Spread(ray, workers, self.shard, tokenizer, window, self.start_timeout)
                yield session
            finally:
                closing = [each.close.remote() for each in workers]
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSING)
                for each in workers:
                    ray.kill(each)

    def _gpus(self, ray: Any) -> int:
        """GPUs of a worker."""
        if not cluster.gpus(ray):
            return 0
        return self.inner.gpus if isinstance(self.inner, Vllm) else 1

    def _count(self, ray: Any, gpus: int) -> int:
        """Workers to start.

        Raises:
            UserError: the cluster could never hold one.
        """
        there, cores = cluster.gpus(ray), cluster.cpus(ray)
        if isinstance(self.inner, Vllm) and self.inner.gpus > max(there, 1):
            has = f"{there or 'no'} GPU{'s' if there != 1 else ''}"
            what = f"a worker takes {self.inner.gpus} GPUs, and the cluster has {has}"
            raise UserError(what, "engine.settings", "lower its tensor_parallel")
        if self.cpus > cores:
            raise UserError(f"is {self.cpus:g}, and the cluster has {cores} cores", "engine.cpus", "lower it")
        return self.workers or (there // gpus if gpus else min(cluster.nodes(ray), int(cores // self.cpus)))


class _Worker:
    """A process on some node, with the model; a new one that takes its place opens it anew."""

    def __init__(self, engine: Any, files: Files, how: ModelLoad, tokenizer: Any, window: int | None) -> None:
        self._engine, self._model, self._stack = engine, (files, how, tokenizer, window), ExitStack()
        self._session: Session | None = None

    def open(self) -> None:
        if self._session is not None:
            return
        files = self._model[0]
        if not files.place.folder.is_dir():
            what = f"the node {socket.gethostname()} does not see {files.place.folder}"
            raise UserError(what, files.place.ref, "put the model on a disk that all nodes share")
        self._engine.check()
        self._session = self._stack.enter_context(self._engine.open(*self._model))

    def ask(self, method: str, arguments: tuple[Any, ...]) -> list[tuple[int, Any]]:
        self.open()
        assert self._session is not None
        return list(getattr(self._session, method)(*arguments))

    def close(self) -> None:
        self._stack.close()


class _Spread:
    """A session whose requests go to workers in shards."""

    def __init__(
        self, ray: Any, workers: Sequence[Any], shard: int, tokenizer: Any, window: int | None, patience: float
    ) -> None:
        """Wait for the first worker.

        Raises:
            UserError: none has the model in time.
        """
        self.tokenizer, self.window = tokenizer, window
        self._ray, self._shard, self._count, self._idle = ray, shard, len(workers), list[Any]()
        self._opening = {each.open.remote(): each for each in workers}
        until = time.monotonic() + patience
        while not self._idle:
            self._take(timeout=1.0)
            if not self._idle and time.monotonic() > until:
                has = ray.available_resources()
                free = ", ".join(f"{has[name]:g} {name}" for name in ("CPU", "GPU") if name in has) or "nothing"
                what = f"no worker has opened the model within {console.seconds(patience)}; the cluster has {free} free"
                raise UserError(what, "engine.start_timeout", "wait until it has room, ask for less, or give it more time")

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, care: Care
    ) -> Iterator[tuple[int, Generation | Failure]]:
        """Answer shard by shard; each answer with its request's place."""
        size = self._size(len(requests))
        shards = [requests[start : start + size] for start in range(0, len(requests), size)]
        for _, found in self._asked([("generate", (list(shard), sampling, care)) for shard in shards]):
            yield from found

    def logprobs(
        self, sequences: Sequence[Sequence[int]], begins: Sequence[int], batch_size: int, care: Care
    ) -> Iterator[tuple[int, list[float]]]:
        """Log-probabilities, shard by shard."""
        size = self._size(len(sequences))
        starts = list(range(0, len(sequences), size))
        cut = [(list(sequences[start : start + size]), list(begins[start : start + size])) for start in starts]
        for number, found in self._asked([("logprobs", (*each, batch_size, care)) for each in cut]):
            for place, values in found:
                yield starts[number] + place, values

    def _size(self, count: int) -> int:
        """Requests of a shard: so few that every worker has two."""
        return max(1, min(self._shard, math.ceil(count / (2 * self._count))))

    def _asked(self, jobs: Sequence[Job]) -> Iterator[tuple[int, list[tuple[int, Any]]]]:
        """The number and the result of each job, as they come; a worker has one at a time.

        Raises:
            UserError: of a worker; or one died again and again over the same shard.
        """
        waiting, running = deque(enumerate(jobs)), dict[Any, tuple[int, Any]]()
        try:
            while waiting or running:
                while waiting and self._idle:
                    worker, (number, job) = self._idle.pop(0), waiting.popleft()
                    running[worker.ask.remote(*job)] = number, worker
                self._take(timeout=0)
                ready, _ = self._ray.wait([*running, *self._opening], num_returns=1)
                for each in ready:
                    if each in running:
                        number, worker = running.pop(each)
                        with _told():
                            found = self._ray.get(each)
                        self._idle.append(worker)
                        yield number, found
        finally:
            for each, (_, worker) in running.items():
                self._opening[each] = worker  # what is not wanted any more is still in work

    def _take(self, timeout: float) -> None:
        """Count workers in that have opened the model meanwhile, or have done what nobody waits for."""
        if not self._opening:
            return
        ready, _ = self._ray.wait(list(self._opening), num_returns=1, timeout=timeout)
        for each in ready:
            worker = self._opening.pop(each)
            with _told():
                self._ray.get(each)
            self._idle.append(worker)


@contextmanager
def _told() -> Iterator[None]:
    """What a worker raises is raised as it was over there; a worker that is lost for good is told in a line."""
    from ray.exceptions import RayActorError

    try:
        yield
    except RayActorError as error:
        what = f"a worker died {_LIVES + 1} times over what it was asked"
        remedy = "see the cluster's logs; it may lack memory: fewer engine.workers, or a smaller sampling.batch_size"
        raise UserError(what, "engine", remedy) from error
    except Exception as error:
        found = cluster.cause(error)
        if found is error:
            raise
        raise found from None
