"""Prefetch: work done ahead in threads, with results in the order of their inputs.

    with prefetch(decode, paths, most=32, threads=2) as images:
        for image in images: ...          # decode(path) of the next 32 runs meanwhile

Pillow and numpy release the GIL while they compute, so threads are enough. No more than `most` results are buffered,
however long the input is; leaving the block, by an error or early, stops the threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


@contextmanager
def prefetch(work: Callable[[In], Out], inputs: Iterable[In], *, most: int, threads: int) -> Iterator[Iterator[Out]]:
    """Gives an iterator over the results in order; an error of `work` is raised in place of its result."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        yield _in_order(pool, work, iter(inputs), most)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[In], Out], inputs: Iterator[In], most: int) -> Iterator[Out]:
    waiting: deque[Future[Out]] = deque(pool.submit(work, item) for item in islice(inputs, most))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(work, item) for item in islice(inputs, 1))
        yield result
