"""Finite differences of functions with stopped gradients: what they stopped stays as it was at the point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Scalar = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def _detach(stop: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    real = torch.Tensor.detach
    torch.Tensor.detach = stop
    try:
        yield
    finally:
        torch.Tensor.detach = real


def check_gradient(function: Scalar, at: torch.Tensor, *, step: float = 1e-6) -> torch.Tensor:
    """Assert that autograd gives the finite differences of `function`, stopped parts frozen. Returns the gradient.

    A gradient is to be stopped by `Tensor.detach`, where this can see it: a part computed without gradient in another
    way would be missing from the one and not from the other.
    """
    stopped: list[torch.Tensor] = []
    real = torch.Tensor.detach

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        stopped.append(real(tensor).clone())
        return stopped[-1]

    leaf = at.clone().requires_grad_()
    with _detach(remember):
        value = function(leaf)
    gradient = torch.autograd.grad(value, leaf)[0]

    def frozen(x: torch.Tensor) -> float:
        remembered = iter(stopped)
        with torch.no_grad(), _detach(lambda tensor: next(remembered)):
            return function(x).item()

    numeric = torch.zeros_like(at)
    for index in range(at.numel()):
        shift = torch.zeros_like(at)
        shift.view(-1)[index] = step
        numeric.view(-1)[index] = (frozen(at + shift) - frozen(at - shift)) / (2 * step)
    torch.testing.assert_close(gradient, numeric, atol=1e-8, rtol=1e-5)
    return gradient
