"""The process group of a run: rank and size, all-gather, all-reduce and broadcast, and a run opened on all processes.

    fabric = open_fabric(recipe.trainer, "32-true")     # one process, or what torchrun or SLURM started
    world = ProcessGroup(fabric)
    everywhere = world.all_gather(mine)                 # a list, one entry a process

torchrun: `torchrun --nproc-per-node 2 -m resnest train ...`; SLURM: `srun resnest train ...`; docs/scale.md has both.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy
from torch import nn
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from resnest.errors import NumericalStop, Preempted, ResnestError, call, parameter
from resnest.inference.torch_engine import choose_device
from resnest.network.resnest import Bottleneck
from resnest.recipes.schema import Recipe, TrainerSettings

# --- Heartbeats: a lost or hanging process ends the run in seconds, not at the next timeout (promise P5) ---
# A crashed process is detected by torchrun, and by srun with an option; a hanging one (SIGSTOP, a hung disk or GPU) by
# neither: the others wait in a collective that never completes. Here a thread of every process writes a counter into
# the rendezvous store, and reads the others'.

LOST = 1  # exit code: torchrun restarts whatever is not 0
DONE = "done"


@contextmanager
def heartbeats(world: ProcessGroup, *, seconds: float) -> Iterator[None]:
    """Within the block, a process without heartbeats for so long ends the run, also one that an error ended."""
    if world.size == 1:
        yield
        return
    heart = _Heartbeat(world, seconds)
    heart.start()
    together = False
    try:
        yield
        together = True
    except (Preempted, NumericalStop):  # what all decide alike
        together = True
        raise
    finally:
        heart.stop(done=together)


class _Heartbeat(threading.Thread):
    """Sends heartbeats and watches the others', some ten times in the allowed time."""

    def __init__(self, world: ProcessGroup, seconds: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.world, self.seconds = world, seconds
        self.over = threading.Event()
        self.done = False  # it leaves as all do, and need not be missed
        self.who = f"{socket.gethostname()} {os.getpid()}"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # what an earlier attempt left in the store
        self.names = [f"resnest/{attempt}/{rank}" for rank in range(world.size)]

    def run(self) -> None:
        # a connection of its own: the processes' common one may be waiting for something else
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=self.seconds),
        )
        heard = {rank: ("", time.monotonic()) for rank in range(self.world.size) if rank != self.world.rank}
        beat = 0
        while not self.over.wait(self.seconds / 10 if beat else 0):
            beat += 1
            try:
                store.set(self.names[self.world.rank], f"{beat} {self.who}")
                self._listen(store, heard)
            except RuntimeError:  # the store is gone, and with it the process or agent that hosted it
                if self.over.wait(self.seconds):
                    return
                self._end("the process that keeps the store (rank 0 or its agent)", "")
        if self.done:
            with contextlib.suppress(RuntimeError):
                store.set(self.names[self.world.rank], DONE)

    def _listen(self, store: Store, heard: dict[int, tuple[str, float]]) -> None:
        now = time.monotonic()
        for rank, (before, since) in list(heard.items()):
            heartbeat = store.get(self.names[rank]).decode() if store.check([self.names[rank]]) else ""
            if heartbeat == DONE:
                del heard[rank]
            elif heartbeat != before:
                heard[rank] = (heartbeat, now)
            elif now - since > self.seconds:  # all begin together: silence from the start counts too
                self._end(f"rank {rank}", before)

    def _end(self, lost: str, heartbeat: str) -> None:
        _, host, process = f"{heartbeat}  ".split(" ", 2)
        where = f" (process {process.strip()} on {host})" if host else ""
        print(
            f"resnest: {lost}{where} has sent no heartbeat for {self.seconds:g} s; the run ends here. Its last"
            f" checkpoint is intact: torchrun --max-restarts resumes automatically, otherwise {call('resume', 'RUN')}",
            file=sys.stderr,
            flush=True,
        )
        if host == socket.gethostname():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(process), signal.SIGKILL)  # a stopped process does not heed anything milder
        os._exit(LOST)  # the main thread waits in a collective and cannot be interrupted

    def stop(self, *, done: bool) -> None:
        self.done = done
        self.over.set()
        self.join(timeout=1)


T = TypeVar("T")

# Of one exchange. A process that is gone is noticed much earlier, by its heartbeat.
EXCHANGE_TIMEOUT = timedelta(minutes=10)


class ProcessGroup:
    """This process in the process group of the run. All methods are collective: every process must call them."""

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.size, self.device = fabric.global_rank, fabric.world_size, fabric.device

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """All-gather: the `value` of every process, in order of rank."""
        if self.size == 1:
            return [value]
        everything: list[Any] = [None] * self.size
        dist.all_gather_object(everything, value)
        return everything

    def all_reduce_sum(self, *values: float) -> list[float]:
        """All-reduce: each value summed over all processes, bit-identical on each; NaN stays NaN."""
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        summed = summed.to(self.device)
        dist.all_reduce(summed)
        return [float(value) for value in summed.tolist()]

    def on_rank_zero(self, act: Callable[[], None]) -> None:
        """Run a function on rank 0; if it fails, every process fails with the same error."""
        self.broadcast_result(act)

    def broadcast_result(self, ask: Callable[[], T]) -> T:
        """Broadcast the result of a function on rank 0; if it fails, every process fails with the same error."""
        answer: T | None = None
        error: ResnestError | OSError | None = None
        if self.is_rank_zero:
            try:
                answer = ask()
            except (ResnestError, OSError) as caught:
                error = caught
        answer, error = self.all_gather((answer, error))[0]
        if error is not None:
            raise error
        return cast(T, answer)

    def shutdown(self) -> None:
        """A barrier, then destroy the group."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()

    def broadcast(self, tensors: list[torch.Tensor]) -> None:
        """Broadcast: overwrite the tensors with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def open_fabric(recipe: Recipe, device: str = "auto") -> Fabric:
    """Join the processes of torchrun or SLURM, start those of the recipe, or run as a single process.

    Raises:
        ResnestError: no such device; a number of processes that contradicts the recipe's.
    """
    trainer = recipe.trainer
    target = choose_device(trainer.accelerator if device == "auto" else device)
    devices, nodes = _layout(trainer)
    if target.index is not None and devices * nodes > 1:
        option = parameter("device", device)
        raise ResnestError(f"{option} is one device, for {devices * nodes} processes: use {target.type}")
    try:
        fabric = Fabric(
            accelerator=target.type,
            devices=devices if target.index is None else [target.index],
            num_nodes=nodes,
            strategy=_strategy(recipe, devices * nodes),
            precision=recipe.train.precision,
        )
    except Exception as error:  # Fabric has exceptions of its own for what the machine does not have
        raise ResnestError(f"trainer: {' '.join(str(error).split())}") from None
    for name in ("lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # six lines of every process before the first of ours
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")):
        _rendezvous_after_restart(target)
    fabric.launch()
    return fabric


def _rendezvous_after_restart(device: torch.device) -> None:
    """Join the process group after torchrun restarted all, before Fabric does.

    The agent's store outlives a restart, and with it the addresses of the processes that are gone (seen in torch
    2.15): who reads one of them before its new owner writes it waits there until the timeout. So every attempt keeps
    its entries apart.
    """
    env = os.environ
    store = TCPStore(
        env["MASTER_ADDR"], int(env["MASTER_PORT"]), is_master=False, wait_for_workers=False, timeout=EXCHANGE_TIMEOUT
    )
    dist.init_process_group(
        dist.get_default_backend_for_device(device),
        store=PrefixStore(f"resnest/attempt/{env['TORCHELASTIC_RESTART_COUNT']}", store),
        rank=int(env["RANK"]),
        world_size=int(env["WORLD_SIZE"]),
        timeout=EXCHANGE_TIMEOUT,
        device_id=torch.device(device.type, int(env["LOCAL_RANK"])) if device.type == "cuda" else None,
    )


def _layout(trainer: TrainerSettings) -> tuple[int, int]:
    """Processes per machine, and machines: from the launcher, otherwise from the recipe."""
    launched = _launched()
    if launched is None:
        if trainer.num_nodes > 1 and "MASTER_ADDR" not in os.environ:  # it would wait for the others for ever
            raise ResnestError(
                f"trainer.num_nodes={trainer.num_nodes}, but nothing says where the other machines are: start this"
                " command on each of them by torchrun or SLURM (docs/scale.md), without this setting"
            )
        return trainer.devices or 1, trainer.num_nodes
    devices, nodes, by = launched
    if trainer.devices not in (None, devices) or trainer.num_nodes not in (1, nodes):
        raise ResnestError(
            f"trainer.devices={trainer.devices} and trainer.num_nodes={trainer.num_nodes}, but {by} started"
            f" {devices} processes on each of {nodes} machines: leave these settings out, the launcher decides"
        )
    return devices, nodes


def _launched() -> tuple[int, int, str] | None:
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:
        local = int(env["LOCAL_WORLD_SIZE"])
        return local, int(env["WORLD_SIZE"]) // local, "torchrun"
    # a shell within an allocation (srun --pty bash) has these variables too, but one process
    if "SLURM_NTASKS" in env and env.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        nodes = int(env.get("SLURM_NNODES", "1"))
        return int(env["SLURM_NTASKS"]) // nodes, nodes, "SLURM"
    return None


def was_restarted() -> bool:
    """Whether torchrun (--max-restarts) or SLURM (requeue) restarted this run after a failure."""
    return any(int(os.environ.get(name, "0")) for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def _strategy(recipe: Recipe, processes: int) -> str | Strategy:
    if recipe.trainer.strategy == "fsdp":
        return ModelParallelStrategy(_shard, data_parallel_size=processes, tensor_parallel_size=1)
    if processes == 1:
        return "auto"
    # statistics are not sent before every step, but when they are wanted (State.buffers)
    newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters  # its name in torch 2.15
    sends: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
    return DDPStrategy(timeout=EXCHANGE_TIMEOUT, gradient_as_bucket_view=True, **sends)


def _shard(net: nn.Module, mesh: Any) -> nn.Module:
    """Shard weights, gradients and optimiser state, gathered block by block (FSDP2, arXiv 2304.11277)."""
    from torch.distributed.fsdp import fully_shard

    for module in net.modules():
        if isinstance(module, Bottleneck):
            fully_shard(module, mesh=mesh["data_parallel"])
    return cast(nn.Module, fully_shard(net, mesh=mesh["data_parallel"]))
