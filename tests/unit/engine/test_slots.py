"""Bookkeeping of rows: a model of the cache, in which each entry names its token, follows every move and copy."""

import anyio
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_rl.engine import GenerationRequest
from agent_rl.engine.local.job import Job
from agent_rl.engine.local.slots import Session, SlotTable
from agent_rl.types import SamplingParams

ROWS, CAPACITY = 5, 24


def make_job(name: str, prompt: list[int]) -> Job:
    request = GenerationRequest(name, np.array(prompt, dtype=np.int32), SamplingParams(), 0)
    return Job(request, 8, done=anyio.Event())


class Slots(RuleBasedStateMachine):
    """`cells[row][column]` stands for the keys and values there: the token they were computed from."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SlotTable(ROWS, CAPACITY)
        self.cells = np.full((ROWS, CAPACITY), -7)
        self.busy: list[Session] = []

    def compute(self, session: Session, ids: list[int]) -> None:
        self.cells[session.row, session.length : session.length + len(ids)] = ids
        session.length += len(ids)

    @rule(
        name=st.sampled_from("abcdefgh"),
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=12),
        part=st.integers(1, 12),
    )
    def begin(self, name: str, prompt: list[int], part: int) -> None:
        """A request starts, and the first `part` of its new tokens are prefilled."""
        session = self.table.sessions.get(name)
        if session in self.busy or (session is None and not self.table.has_room):
            return
        job = make_job(name, prompt)
        if session is None:
            match = self.table.match(job.request.prompt_ids_T, 0)
            session = self.table.open(name, 0)
            if match:
                self.cells[session.row, : match.computed] = self.cells[match.session.row, : match.computed]
                self.table.adopt(session, job.request.prompt_ids_T[: match.computed])
        self.table.start(session, job, 0)
        assert session.length < len(prompt)
        self.compute(session, prompt[session.length :][:part])
        self.busy.append(session)

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), token=st.integers(0, 1))
    def decode(self, data: st.DataObject, token: int) -> None:
        session = data.draw(st.sampled_from(self.busy))
        if session.remaining:
            prompt = session.work.request.prompt_ids_T.tolist()
            self.compute(session, prompt[session.length :])
        elif session.length < CAPACITY:
            self.table.record([session], np.array([token]), np.array([session.length]))
            self.compute(session, [token])

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), close=st.booleans())
    def end(self, data: st.DataObject, close: bool) -> None:
        session = data.draw(st.sampled_from(self.busy))
        self.busy.remove(session)
        self.table.rest(session)
        if close:
            self.table.close(session)

    @rule(data=st.data())
    def arrange(self, data: st.DataObject) -> None:
        order = data.draw(st.permutations(self.busy))
        split = data.draw(st.integers(0, len(order)))
        sources, targets = self.table.arrange(order[:split], order[split:])
        self.cells[targets] = self.cells[sources]
        assert sorted(session.row for session in order[:split]) == list(range(split))
        assert sorted(session.row for session in order[split:]) == list(range(split, len(order)))

    @invariant()
    def rows_are_consistent(self) -> None:
        sessions = self.table.sessions
        assert len({session.row for session in sessions.values()}) == len(sessions) <= ROWS
        for name, session in sessions.items():
            assert session.name == name
            held = self.table._ids_RC[session.row, : session.length]
            assert held.tolist() == self.cells[session.row, : session.length].tolist()
            assert (held >= 0).all()
            if session not in self.busy:  # or others would wait for tokens that nobody computes
                assert (self.table._ids_RC[session.row, session.length :] == -1).all()
        assert self.table.has_room == (len(self.busy) < ROWS)
        free = sorted(set(range(ROWS)) - {session.row for session in sessions.values()})
        assert (self.table._ids_RC[free] == -1).all()


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=40, stateful_step_count=30)


def test_the_idle_session_used_longest_ago_goes_first() -> None:
    table = SlotTable(2, 8)
    first, second = table.open("first", 0), table.open("second", 0)
    for session in (first, second, first):
        table.start(session, make_job(session.name, [1, 2]), 0)
        table.rest(session)
    table.open("third", 0)
    assert set(table.sessions) == {"first", "third"}
    assert table.evictions == 1


@given(count=st.integers(1, ROWS))
def test_nothing_moves_when_all_is_in_place(count: int) -> None:
    table = SlotTable(ROWS, CAPACITY)
    group = [table.open(str(n), 0) for n in range(count)]
    assert table.arrange(group) == ([], [])
