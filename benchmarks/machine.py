"""What a measurement needs to know of the machine: CPU time, the rate of its matrix products, allocated memory."""

import time
from collections.abc import Callable

import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile


def cpu_s(run: Callable[[], object]) -> float:
    """CPU seconds that `run` takes, whatever else the machine does."""
    start = time.process_time()
    run()
    return time.process_time() - start


def gemm_rate(size: int = 1536) -> float:
    """FLOP per second of a large fp32 product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(cpu_s(lambda: a @ b) for _ in range(3))


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that `run` has allocated at once, by the records of torch's CPU allocator: exact, unlike the RSS.

    What was there before does not count, nor that `run` may free it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    left = list(recorded.profiler.kineto_results.experimental_event_tree())  # pyright: ignore[reportOptionalMemberAccess]  # it has run
    changes: list[tuple[int, int, int]] = []
    while left:
        event = left.pop()
        left += event.children
        if event.typed[0] == _EventType.Allocation:
            changes.append((event.start_time_ns, event.typed[1].ptr, event.typed[1].alloc_size))
    blocks: dict[int, int] = {}
    held = peak = 0
    for _, address, size in sorted(changes):
        if size > 0:
            blocks[address] = size
            held += size
        else:
            held -= blocks.pop(address, 0)
        peak = max(peak, held)
    return peak
