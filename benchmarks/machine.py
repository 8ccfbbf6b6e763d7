"""What a measurement needs to know of the machine: CPU time, the rate of its matrix products, allocated memory."""

import time
from collections.abc import Callable

import torch
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

    Runs it twice. What was there before does not count, nor that the second run may free it.
    """
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    kineto = recorded.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]  # it has run
    changes = sorted((event.start_ns(), event.nbytes()) for event in kineto.events() if event.name() == "[memory]")
    held = peak = 0
    for _, nbytes in changes:
        held += nbytes
        peak = max(peak, held)
    return peak
