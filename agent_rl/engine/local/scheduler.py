"""What the engine computes in each step: which requests join, which rows are prefilled and decoded, what ends.

Synchronous and single-threaded: the asynchronous shell calls everything here from one thread at a time.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from agent_rl.engine.local.forward import Forward
from agent_rl.engine.local.job import Job
from agent_rl.engine.local.sampling import sample
from agent_rl.engine.local.slots import Session, SlotTable
from agent_rl.errors import ModelError
from agent_rl.types import FinishReason

_PREFILL_TOKENS = 4096  # at most so many tokens, padding included, in one prefill
_PREFILL_EVERY = 4  # steps between two prefills, unless many rows wait: small prefills cost as much as large ones
_MASK_ELEMENTS = 1 << 25  # at most so many entries in the attention mask of one prefill
_MAX_PASSED = 256  # waiting requests that later ones may overtake, while their prompt is computed by a sibling
_MIN_SHARED = 16  # a shorter common prefix is not worth a copy


@dataclass(slots=True)
class EngineStats:
    """Counters since the engine was made. Tokens of prompts are either reused, copied or prefilled.

    `reused_tokens`: already in the session's own cache. `copied_tokens`: taken from a session with the same prefix.
    `prefill_tokens`: computed, padding not counted. `decode_tokens`: sampled. `steps`: scheduler steps, of which
    `prefill_steps` had a prefill and `decode_steps` a decode. `busy_s`: wall time inside steps.
    """

    requests: int = 0
    prefill_tokens: int = 0
    reused_tokens: int = 0
    copied_tokens: int = 0
    decode_tokens: int = 0
    steps: int = 0
    prefill_steps: int = 0
    decode_steps: int = 0
    evictions: int = 0
    aborted: int = 0
    weight_updates: int = 0
    busy_s: float = 0.0


class Scheduler:
    """Continuous batching: requests join and leave at any step; one step is one decode and at most one prefill.

    A row goes through waiting (no row yet, first in first out), prefilling, decoding, and is then kept idle for its
    next turn. Decoding rows are kept at `[0, n)` and the rows prefilled in this step behind them, so that both are
    slices of the cache. With `deterministic`, every forward is of one row and one token.
    """

    def __init__(self, forward: Forward, rows: int, max_context: int, deterministic: bool) -> None:
        self.stats = EngineStats()
        self.version = 0
        self.slots = SlotTable(rows, forward.cache.capacity)
        self._forward = forward
        self._max_context = max_context
        self._deterministic = deterministic
        self._waiting: deque[Job] = deque()
        self._prefilling: list[Session] = []
        self._decoding: list[Session] = []
        self._since_prefill = 0

    @property
    def busy(self) -> bool:
        """Whether the next step has something to compute."""
        return bool(self._decoding or self._prefilling or self._waiting)

    @property
    def running(self) -> int:
        """Requests that have not ended."""
        return len(self._decoding) + len(self._prefilling) + len(self._waiting)

    # --- commands, between steps ------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Take a request. A resident session starts in the next step, others when a row is free."""
        self.stats.requests += 1
        session = self.slots.sessions.get(job.request.session)
        if session is None:
            self._waiting.append(job)
        else:
            self._start(session, job)
            self.stats.reused_tokens += session.length

    def abort(self, name: str) -> list[Job]:
        """End the session's request with what was sampled; its cache stays. Returns the ended request, if any."""
        session = self.slots.sessions.get(name)
        if session is None:
            ended = [job for job in self._waiting if job.request.session == name]
            self._waiting = deque(job for job in self._waiting if job.request.session != name)
        else:
            ended = [session.job] if session.job else []
            self._decoding = [other for other in self._decoding if other is not session]
            self._prefilling = [other for other in self._prefilling if other is not session]
            self.slots.rest(session)
        for job in ended:
            job.finish = FinishReason.ABORT
        self.stats.aborted += len(ended)
        return ended

    def release(self, name: str) -> list[Job]:
        """Abort the session's request, if any, and free its row."""
        ended = self.abort(name)
        session = self.slots.sessions.get(name)
        if session is not None:
            self.slots.close(session)
        return ended

    def clear(self) -> None:
        """Forget all requests, unanswered, and all sessions; the memory of the cache is given back."""
        self._waiting.clear()
        self._prefilling, self._decoding = [], []
        self.slots.clear()
        self._forward.cache.clear()

    @torch.no_grad()
    def update_weights(self, targets: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], v: int) -> None:
        """Copy `weights` in place. What is in the cache stays, but is no longer copied to other sessions."""
        for name, tensor in weights.items():
            targets[name].copy_(tensor)
        self.version = v
        self.stats.weight_updates += 1

    # --- one step ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> list[Job]:
        """Decode one token of every running row and prefill some waiting ones. Returns the requests that ended."""
        started = time.perf_counter()
        self._admit()
        decoding, batch = self._decoding, self._pick()
        self._arrange(decoding, batch)
        logits = [self._decode(decoding)] if decoding else []
        if batch:
            logits.append(self._prefill(batch, first=len(decoding)))
        ready = [*decoding, *(session for session in batch if not session.remaining)]
        ended = self._sample(ready, torch.cat(logits)) if ready else []
        self._decoding = [session for session in ready if session.job]
        self._prefilling = [session for session in self._prefilling if session.job and session.remaining]
        self.stats.steps += 1
        self.stats.busy_s += time.perf_counter() - started
        return ended

    def _admit(self) -> None:
        """Give waiting requests a row, in order, as long as there are rows."""
        passed: list[Job] = []
        while self._waiting and self.slots.has_room and len(passed) < _MAX_PASSED:
            job = self._waiting.popleft()
            if not self._join(job):
                passed.append(job)
        self._waiting.extendleft(reversed(passed))

    def _join(self, job: Job) -> bool:
        """Open a session for `job`, unless another is just computing most of its prompt: then it copies that later."""
        prompt_T = job.request.prompt_ids_T
        self._reserve(len(prompt_T))
        match = self.slots.match(prompt_T, self.version)
        if match and match.planned >= match.computed + _MIN_SHARED:
            return False
        session = self.slots.open(job.request.session, self.version)
        if match and match.computed >= _MIN_SHARED:
            if match.session.row != session.row:  # equal when the source was evicted: the row is inherited as it is
                self._forward.cache.copy(match.session.row, session.row, match.computed)
            self.slots.adopt(session, prompt_T[: match.computed])
            self.stats.copied_tokens += match.computed
        self._start(session, job)
        self.stats.evictions = self.slots.evictions
        return True

    def _start(self, session: Session, job: Job) -> None:
        self._reserve(len(job.request.prompt_ids_T))
        self.slots.start(session, job, self.version)
        self._prefilling.append(session)

    def _reserve(self, tokens: int) -> None:
        """Make room for `tokens` in each row: capacity doubles up to `max_context`."""
        capacity = self._forward.cache.capacity
        if tokens <= capacity:
            return
        while capacity < tokens:
            capacity *= 2
        capacity = min(capacity, self._max_context)
        self._forward.cache.grow(capacity)
        self.slots.grow(capacity)

    def _pick(self) -> list[Session]:
        """The next prefill: the oldest, and whatever can be padded to the same length without much waste."""
        self._since_prefill += 1
        enough = 8 * len(self._prefilling) >= len(self._decoding) or self._since_prefill >= _PREFILL_EVERY
        if not self._prefilling or not enough:
            return []
        self._since_prefill = 0
        batch: list[Session] = []
        longest = tokens = 0
        for session in self._prefilling:
            count = min(session.remaining, _PREFILL_TOKENS)
            padded = max(longest, count) * (len(batch) + 1)
            if batch and (padded > _PREFILL_TOKENS or padded > 1.25 * (tokens + count) + 64):
                continue
            batch.append(session)
            longest, tokens = max(longest, count), tokens + count
        return batch

    def _arrange(self, decoding: list[Session], batch: list[Session]) -> None:
        """Move rows so that both lists are neighbours in the cache, and order the lists by row."""
        sources, targets = self.slots.arrange(decoding, batch)
        if sources:
            width = max(session.length for session in self.slots.sessions.values())
            self._forward.cache.move(sources, targets, width)
        decoding.sort(key=_row)
        batch.sort(key=_row)

    def _decode(self, sessions: Sequence[Session]) -> torch.Tensor:
        """Logits [N, V] after the last sampled token of each session."""
        ids_N = np.array([session.work.tokens[-1] for session in sessions])
        positions_N = np.array([session.length for session in sessions])
        self._reserve(int(positions_N.max()) + 1)
        logits_NV = self._run(0, ids_N[:, None], positions_N[:, None])
        self.slots.record(sessions, ids_N, positions_N)
        for session in sessions:
            session.length += 1
        self.stats.decode_steps += 1
        return logits_NV

    def _prefill(self, batch: Sequence[Session], first: int) -> torch.Tensor:
        """Compute the prompts of `batch`, as far as one forward may go. Logits [N, V] of those that are complete."""
        longest = max(session.remaining for session in batch)
        limit = _MASK_ELEMENTS // (len(batch) * max(len(s.work.request.prompt_ids_T) for s in batch))
        width = max(1, min(longest, _PREFILL_TOKENS // len(batch), limit))
        ids_BS = np.zeros((len(batch), width), dtype=np.int64)
        positions_BS = np.full_like(ids_BS, -1)
        for row, session in enumerate(batch):
            end = min(session.length + width, len(session.work.request.prompt_ids_T))
            count = end - session.length
            ids_BS[row, width - count :] = session.work.request.prompt_ids_T[session.length : end]
            positions_BS[row, width - count :] = np.arange(session.length, end)
            session.length = end
            self.stats.prefill_tokens += count
        logits_BV = self._run(first, ids_BS, positions_BS)
        self.stats.prefill_steps += 1
        complete = [row for row, session in enumerate(batch) if not session.remaining]
        return logits_BV if len(complete) == len(batch) else logits_BV[complete]

    def _run(self, first: int, ids_BS: NDArray[np.int64], positions_BS: NDArray[np.int64]) -> torch.Tensor:
        """One forward; or, if deterministic, one for each token, so that no result depends on its neighbours."""
        if not self._deterministic:
            return self._forward(first, ids_BS, positions_BS)
        logits: list[torch.Tensor] = []
        for row in range(len(ids_BS)):
            columns = np.flatnonzero(positions_BS[row] >= 0).tolist()
            one_by_one = [
                self._forward(first + row, ids_BS[row : row + 1, c : c + 1], positions_BS[row : row + 1, c : c + 1])
                for c in columns
            ]
            logits.append(one_by_one[-1])
        return torch.cat(logits)

    def _sample(self, sessions: Sequence[Session], logits_NV: torch.Tensor) -> list[Job]:
        """One token for each session. Returns the requests that ended with it; their sessions are idle then."""
        jobs = [session.work for session in sessions]
        params_N = [job.request.sampling for job in jobs]
        uniforms_N = [next(job.uniforms) for job in jobs]
        groups = [slice(n, n + 1) for n in range(len(jobs))] if self._deterministic else [slice(None)]
        sampled = [sample(logits_NV[group], params_N[group], uniforms_N[group]) for group in groups]
        # One transfer from the device: float64 holds ids and fp32 log-probs exactly.
        ids_N, logprobs_N = torch.cat([torch.stack([i.double(), p.double()]) for i, p in sampled], dim=1).tolist()
        if any(map(math.isnan, logprobs_N)):
            raise ModelError(f"The model returned NaN with weights version {self.version}: has training diverged?")
        ended: list[Job] = []
        for session, job, token, logprob in zip(sessions, jobs, ids_N, logprobs_N, strict=True):
            if job.accept(int(token), logprob, self.version):
                self.slots.rest(session)
                ended.append(job)
        self.stats.decode_tokens += len(jobs)
        return ended


def _row(session: Session) -> int:
    return session.row
