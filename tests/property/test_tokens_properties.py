"""Token bookkeeping against a model made of plain Python lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent_rl.tokens import TokenBuffer
from agent_rl.types import FinishReason, Generation

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=200)
SAMPLED = st.lists(
    st.tuples(st.integers(0, 2**31 - 1), st.floats(-50, 0, width=32), st.integers(0, 2**31 - 1)), max_size=200
)


def as_generation(sampled) -> Generation:
    ids, logprobs, versions = zip(*sampled, strict=True) if sampled else ((), (), ())
    return Generation(
        np.array(ids, np.int32), np.array(logprobs, np.float32), np.array(versions, np.int32), FinishReason.STOP
    )


@given(IDS, st.lists(st.tuples(st.just("context"), IDS) | st.tuples(st.just("response"), SAMPLED), max_size=12))
def test_buffer_equals_its_model(prompt, appended):
    buffer = TokenBuffer(prompt)
    model = [(token, False, 0.0, -1) for token in prompt]
    earlier = []
    for kind, items in appended:
        earlier.append((buffer.segment(), buffer.ids_T, list(model)))
        if kind == "context":
            buffer.append_context(items)
            model += [(token, False, 0.0, -1) for token in items]
        else:
            span = buffer.append_response(as_generation(items))
            assert span == (len(model), len(model) + len(items))
            model += [(token, True, logprob, version) for token, logprob, version in items]
    for segment, ids_T, rows in [*earlier, (buffer.segment(), buffer.ids_T, model)]:
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], []]
        assert segment.token_ids_T.tolist() == ids_T.tolist() == columns[0]
        assert segment.response_mask_T.tolist() == columns[1]
        assert segment.rollout_logprobs_T.tolist() == columns[2]
        assert segment.weight_versions_T.tolist() == columns[3]
    assert len(buffer) == len(model)
