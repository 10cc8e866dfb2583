"""Communication between processes. All functions also work with a single process."""

import contextlib
import importlib
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from dnnlib import UserError
from dnnlib.streams import protected

PATIENCE = 10.0  # seconds that other processes have to end after one process has failed
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""Signals that request a stop. Windows has no SIGHUP, and only Windows has SIGBREAK."""

_alone = False


class LostPeer(UserError):
    """Another process has ended or cannot be reached."""


def init(rank: int | None = None, world_size: int | None = None, port: int | None = None, device: str = "cpu") -> None:
    """Join the process group of torchrun's environment, or of the arguments. Without both, this process is alone.

    Args:
        rank, world_size, port: for processes started on this machine by `spawn`, which keeps their store at `port`.
        device: 'cuda' gives every process on a machine its own GPU. Other devices communicate through the CPU.

    Raises:
        UserError: the other processes cannot be reached.
    """
    if rank is None and "RANK" not in os.environ:
        return
    # Functions of this module have the group at import time as a default. If PyTorch imported it later, the functions
    # would keep threads of a closed group alive, and these threads abort a process that ends.
    importlib.import_module("torch.distributed.nn.functional")
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    try:
        if rank is not None:
            store = torch.distributed.TCPStore("127.0.0.1", port)
        else:
            # After a restart torchrun reuses the previous store, which still holds addresses of dead processes.
            store, rank, world_size = next(torch.distributed.rendezvous("env://"))
            restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = torch.distributed.PrefixStore(f"restart{restart}", store)
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"Cannot connect to the other processes: {str(error).splitlines()[0]}") from error
    if device == "cuda":
        torch.cuda.set_device(get_local_rank())


def shutdown() -> None:
    """Leave the process group, if there is one. Waits until all processes are done."""
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def first_failure_alone_reports() -> Iterator[None]:
    """Of a group started by torchrun, let only the process that failed first speak of it.

    Processes that lost a partner end silently. If the failed process could not report, process 0 reports the error.
    """
    try:
        yield
    except LostPeer:
        time.sleep(0.5)  # the failed process may still be about to report
        if get_rank() == 0 and _count_failures(0) == 0:
            raise
        sys.exit(1)
    except Exception:
        if _count_failures(1) > 1:
            sys.exit(1)
        raise


def _count_failures(more: int) -> int:
    """Returns how many processes of the group have failed by themselves, including `more` new failures."""
    if not is_distributed():
        return more
    with contextlib.suppress(RuntimeError, AttributeError):
        store = torch.distributed.distributed_c10d._get_default_store()
        return store.add(f"failures/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", more)
    return more


def spawn(function: Callable[..., Any], world_size: int, *args: Any, device: str = "cpu") -> Any:
    """Call `function(*args)` in a group of `world_size` new processes on this machine.

    Passes `STOP_SIGNALS` on to the processes as SIGTERM. The processes decide how to react.

    Args:
        function: function that can be imported by name.
        device: see `init`.

    Returns:
        The return value of the function in process 0.

    Raises:
        UserError: the error of the process that failed first, or a process was killed. The other processes are ended.
        KeyboardInterrupt: a signal ended the processes.
    """
    context = torch.multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: only this process handles Ctrl-C
    # Keep the store here, at a port that the system chooses. A port chosen in advance may be in use later.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = torch.multiprocessing.start_processes(
        _member, (function, args, world_size, store.port, device, answers), nprocs=world_size, join=False
    ).processes
    received, found = [], {}

    def listen() -> None:
        while not answers.empty():
            kind, answer = answers.get()
            found.setdefault(kind, answer)

    def pass_on(number: int, _: Any) -> None:
        received.append(number)
        for process in started:
            if process.is_alive():
                process.terminate()

    chosen = [number for number in STOP_SIGNALS if not stays_ignored(number)]
    before = {number: signal.signal(number, pass_on) for number in chosen} | {signal.SIGINT: interrupt}
    try:
        while alive := [process for process in started if process.is_alive()]:
            if any(process.exitcode for process in started):
                break
            multiprocessing.connection.wait([process.sentinel for process in alive], timeout=0.2)
            listen()  # a process that sends more than fits into the pipe waits for the reader
        deadline = time.monotonic() + PATIENCE
        while any(process.is_alive() for process in started) and time.monotonic() < deadline:
            time.sleep(0.05)  # a process that lost a partner soon ends by itself
            listen()
        killed = [-process.exitcode for process in started if (process.exitcode or 0) < 0]
    finally:
        for process in started:
            process.kill()
            process.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    listen()
    if "result" in found:  # process 0 reports when all are done, so later failures lose nothing
        return found["result"]
    if "mistake" in found:
        raise UserError(found["mistake"])
    if received:
        raise KeyboardInterrupt
    # An abort may follow from an error elsewhere. A kill by the system, for example for lack of memory, is a cause.
    if "crash" in found and getattr(signal, "SIGKILL", None) not in killed:
        raise RuntimeError(found["crash"])
    if killed:
        name = next((known.name for known in signal.Signals if known == killed[0]), f"Signal {killed[0]}")
        raise UserError(
            f"{name} ended one of the {world_size} processes, so all processes ended. Check that memory suffices."
        )
    if "lost" in found:
        raise UserError(found["lost"])
    raise RuntimeError(f"Processes ended with codes {[p.exitcode for p in started]}.")


def _member(
    rank: int, function: Callable[..., Any], args: tuple, world_size: int, port: int, device: str, answers: Any
) -> None:
    """Run one of the processes that `spawn` starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if device == "cpu":
        torch.set_num_threads(max((os.cpu_count() or 1) // world_size, 1))
    try:
        init(rank, world_size, port, device=device)
        with protected():
            result = function(*args)
        shutdown()
        if rank == 0:
            answers.put(("result", result))
        return
    except LostPeer as error:
        answers.put(("lost", error.message))
    except UserError as error:
        answers.put(("mistake", error.message))
    except KeyboardInterrupt:
        pass
    except Exception:
        answers.put(("crash", traceback.format_exc()))
    sys.exit(1)


def stays_ignored(number: int) -> bool:
    """Whether a signal that users do not send by hand is already ignored, such as SIGHUP under nohup."""
    return number not in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) == signal.SIG_IGN


def is_distributed() -> bool:
    """Whether several processes work together."""
    return not _alone and torch.distributed.is_available() and torch.distributed.is_initialized()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Makes this process act as a single process, until the end of `with`."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def get_rank() -> int:
    """Returns the number of this process in the group, from 0."""
    return torch.distributed.get_rank() if is_distributed() else 0


def get_local_rank() -> int:
    """Returns the number of this process on its machine, from 0."""
    devices = max(torch.cuda.device_count(), 1)
    return int(os.environ.get("LOCAL_RANK", get_rank() % devices))


def get_world_size() -> int:
    """Returns the number of processes."""
    return torch.distributed.get_world_size() if is_distributed() else 1


def _together(collective: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Run a collective operation of all processes.

    Raises:
        LostPeer: another process has ended.
    """
    try:
        collective(*args, **kwargs)
    except RuntimeError as error:  # backends have no error class for a lost connection
        reason = str(error).splitlines()[0].rpartition("] ")[2][:100]
        raise LostPeer(f"Another process has ended ({reason}), so this process ends too.") from error


def barrier() -> None:
    """Wait until all processes have called this function."""
    if is_distributed():
        _together(torch.distributed.barrier)


def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
    """Sum `tensor` over all processes, in place. With gloo, the sum is computed on the CPU."""
    if is_distributed():
        _together(torch.distributed.all_reduce, tensor)
    return tensor


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes, in order. Values must be picklable."""
    if not is_distributed():
        return [value]
    values = [None] * get_world_size()
    _together(torch.distributed.all_gather_object, values, value)
    return values


def gather_to_first(value: Any) -> list[Any]:
    """Returns the values of all processes on process 0, in order, and an empty list elsewhere. Values are pickled."""
    if not is_distributed():
        return [value]
    values = [None] * get_world_size() if get_rank() == 0 else None
    _together(torch.distributed.gather_object, value, values, dst=0)
    return values or []


def broadcast(value: Any) -> Any:
    """Returns the value of process 0 on all processes. It must be picklable."""
    if not is_distributed():
        return value
    shared = [value]
    _together(torch.distributed.broadcast_object_list, shared, src=0)
    return shared[0]


def from_first(function: Callable[..., Any], *args: Any) -> Any:
    """Returns the result of `function(*args)` in process 0 on all processes. If it fails, others exit silently."""
    if not is_distributed():
        return function(*args)
    if get_rank() == 0:
        try:
            answer = function(*args)
        except BaseException:
            broadcast((None, False))
            raise
        broadcast((answer, True))
        return answer
    answer, succeeded = broadcast(None)
    if not succeeded:
        with contextlib.suppress(LostPeer):
            barrier()  # a launcher ends all processes when one has ended: let process 0 report first
        sys.exit(1)
    return answer


def broadcast_module(module: torch.nn.Module) -> None:
    """Copy the parameters and buffers of process 0 to every process."""
    if is_distributed():
        for tensor in [*module.parameters(), *module.buffers()]:
            _together(torch.distributed.broadcast, tensor.detach(), src=0)


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Average gradients over all processes, in place and in one transfer. Parameters without gradients are skipped."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not is_distributed() or not grads:
        return
    flat = all_reduce(torch.cat([grad.flatten() for grad in grads])).div_(get_world_size())
    for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def find_difference(tensors: Mapping[str, torch.Tensor]) -> tuple[str, int] | None:
    """Returns the first tensor that differs from process 0 in any bit, and the number of that process, or None.

    Compares checksums, one integer sum per tensor. All processes must call this together.
    """
    if not is_distributed() or not tensors:
        return None
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    sums = [t.detach().flatten().view(integers[t.element_size()]).sum(dtype=torch.int64) for t in tensors.values()]
    everywhere = gather(torch.stack(sums).tolist())
    for rank, theirs in enumerate(everywhere):
        for name, mine, other in zip(tensors, everywhere[0], theirs, strict=True):
            if mine != other:
                return name, rank
    return None
