"""An event loop on virtual time, in which whole processes can die, hang and come back.

Deterministic: nothing is read from the machine, callbacks run in the order in which they were
scheduled, and time goes on only when nothing is left to do. A task is born into a *process*, and so
is everything that it schedules. A process that is killed stops where it stands: not one more of its
callbacks runs, no `finally` block and no handler of a cancellation included, as after SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from itertools import count
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
Coro = Generator[Any, None, T] | Coroutine[Any, Any, T]
_CURRENT: contextvars.ContextVar[Process] = contextvars.ContextVar("process")
_PRUNE = 200


class Stuck(Exception):
    """Nothing is left to do, at no time: everybody waits for somebody."""


class Process:
    """An operating system's process, as far as it matters here."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self.fuse: int | None = None  # so many of its callbacks still run before it is killed
        self.stopped = False  # SIGSTOP
        self.held: deque[asyncio.Handle] = deque()  # what it would do, if it could
        self.tasks: list[asyncio.Task[Any]] = []
        self.mourners: list[Callable[[], None]] = []  # what the kernel does when it is gone
        self._loop = loop
        self._context = contextvars.copy_context()
        self._context.run(_CURRENT.set, self)

    def spawn(self, coro: Coro[T]) -> asyncio.Task[T]:
        """A task of this process, whoever asks for it."""
        return self._loop.create_task(coro, context=self._context.copy())

    def after(self, seconds: float, what: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, what, *args, context=self._context)

    def now(self) -> float:
        return self._loop.time()

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            for mourner in self.mourners:
                mourner()

    def stop(self) -> None:
        """SIGSTOP: it does nothing, and does not know that time goes by."""
        self.stopped = True

    def resume(self) -> None:
        """SIGCONT: what waited for it happens now, in its order."""
        self.stopped = False
        self._loop.take_back(self)

    def burn(self) -> bool:
        """One more of its callbacks is about to run. False: it was killed instead."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.fuse = None
                self.kill()
        return self.alive

    def keep(self, task: asyncio.Task[Any]) -> None:
        """A task that nobody holds would be closed by the interpreter, and its `finally` blocks
        run: what a killed process left undone must stay undone."""
        self.tasks.append(task)
        if len(self.tasks) % _PRUNE == 0:
            self.tasks = [t for t in self.tasks if not t.done()]


class _Task(asyncio.Task[T]):
    """Sets of tasks (asyncio has some) are in the order of their making, in every run."""

    def __init__(self, number: int, coro: Coro[T], **options: Any) -> None:
        self._place = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._place


class VirtualLoop(asyncio.BaseEventLoop):
    """Time is a number. `defect` is told of exceptions that nobody took."""

    _ready: deque[asyncio.Handle]
    _asyncgens: WeakSet[AsyncGenerator[Any, Any]]
    _stopping: bool

    def __init__(self, defect: Callable[[str], None]) -> None:
        super().__init__()
        self._now = 0.0
        self._numbers = count(1)
        # Those of one moment go off in the order of their making; numbers compare at once.
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.steps = 0
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: defect(_words(context)))

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """As asyncio's, without its checks for other threads and for debugging."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coro[T], context: Any = None
    ) -> asyncio.Future[T]:
        task: _Task[T] = _Task(next(self._numbers), coro, loop=loop, context=context)
        (context or contextvars.copy_context()).run(_CURRENT.get).keep(task)
        return task

    def _asyncgen_finalizer_hook(self, agen: AsyncGenerator[Any, Any]) -> None:
        """One that nobody holds any more stays where it stands. asyncio would close it, whenever
        the collector finds it, in whatever process that is, even if its own was killed."""
        self._asyncgens.discard(agen)

    def forget_timers(self) -> None:
        self._timers.clear()

    def take_back(self, process: Process) -> None:
        held, process.held = process.held, deque()
        self._ready.extend(held)

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready and not self._stopping:
            self._go_on_to_the_next_time()
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                self._run(handle)

    def _go_on_to_the_next_time(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Stuck("nothing will ever happen again")
        self._now = max(self._now, timers[0][0])

    def _run(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(_CURRENT)  # type: ignore[attr-defined]
        if process is None:  # the loop's own
            handle._run()
        elif process.stopped or not process.alive or not process.burn():
            process.held.append(handle)
        else:
            self.steps += 1
            handle._run()

    # ---- what there is none of ----

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """They are dropped when their time comes."""

    def _write_to_self(self) -> None:
        """Nobody sleeps."""

    def _process_events(self, event_list: Any) -> None:
        raise NotImplementedError

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise RuntimeError(f"no threads under simulation: {func}")


def current() -> Process:
    """Whose callback this is."""
    return _CURRENT.get()


def run(loop: VirtualLoop, process: Process, main: Coro[T]) -> T:
    """`main` in this process, to its end."""
    return loop.run_until_complete(process.spawn(main))


def take_down(loop: VirtualLoop, processes: list[Process]) -> None:
    """Close what every process has left open. Call it when nobody looks any more."""
    loop.set_exception_handler(lambda _, __: None)
    loop.forget_timers()
    for process in processes:
        process.alive, process.stopped, process.fuse = True, False, None
        process.mourners.clear()
        process.kill = lambda: None  # type: ignore[method-assign]
        loop.take_back(process)
        for task in process.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task.cancel()
    janitor = processes[0]
    janitor.after(60.0, loop.stop)
    loop.run_forever()
    loop.close()


def _words(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{context['message']}: {error!r}" if error is not None else str(context["message"])
