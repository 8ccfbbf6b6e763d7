import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rl.chat import ChatCodec, Conversation
from agent_rl.types import Message

QUESTION = (Message("system", "Be brief."), Message("user", "How many?"))
CALL = '<think>\nI look.\n</think>\n\n<tool_call>\n{"name":   "look", "arguments": {"at": "1"}}\n</tool_call>'
SEEN = (Message("tool", "seen", tool_call_id="call_0"),)
NEXT = (Message("user", "And now?"),)


def started(codec, tools=()) -> Conversation:
    conversation = Conversation(codec, tools)
    conversation.start(QUESTION)
    return conversation


def test_an_episode_is_one_segment(codec, tool, sample):
    conversation = started(codec, [tool])
    prompt = conversation.prompt_ids_T
    assert prompt.tolist() == codec.encode_prompt(QUESTION, [tool]).tolist()
    first, second = sample(CALL + "<|im_end|>", version=1), sample("42<|im_end|>", version=2)

    response = conversation.append_response(first)
    assert response.message.tool_calls[0].arguments == {"at": "1"}
    assert (response.segment, response.start, response.end) == (0, len(prompt), len(prompt) + len(first.token_ids_R))
    conversation.append_observations(SEEN)
    answer = conversation.append_response(second)

    (segment,) = conversation.segments()
    ids = segment.token_ids_T
    assert ids[response.start : response.end].tolist() == first.token_ids_R.tolist()
    assert ids[answer.start : answer.end].tolist() == second.token_ids_R.tolist()
    assert ids[response.end : answer.start].tolist() == codec.encode_observations(SEEN, closed=True).tolist()
    assert np.flatnonzero(segment.response_mask_T).tolist() == [
        *range(response.start, response.end),
        *range(answer.start, answer.end),
    ]
    assert set(segment.weight_versions_T[answer.start : answer.end]) == {2}
    assert conversation.forks == 0


def test_history_is_never_rendered_again(tokenizer, sample, monkeypatch):
    codec = ChatCodec(tokenizer)
    conversation = started(codec)
    monkeypatch.setattr(tokenizer, "apply_chat_template", None)
    for observations in (SEEN, NEXT, SEEN):
        conversation.append_response(sample(CALL + "<|im_end|>"))
        conversation.append_observations(observations)
    assert len(conversation.segments()) == 1


@pytest.mark.parametrize("name", ["codec", "rewriting_codec"])
def test_a_response_cut_by_length_is_closed_by_context(name, request, sample):
    codec = request.getfixturevalue(name)
    conversation = started(codec)
    response = conversation.append_response(sample("half an ans"))
    conversation.append_observations(NEXT)
    (segment,) = conversation.segments()
    assert segment.token_ids_T[response.end] in codec.stop_token_ids
    assert not segment.response_mask_T[response.end :].any()
    assert codec.decode(segment.token_ids_T[response.start :]).startswith("half an ans<|im_end|>\n<|im_start|>user\n")


def test_odd_tokens_stay_as_sampled_while_the_text_is_extended(rewriting_codec, sample):
    """The template may rewrite, but did not: other tokens of the same text are no reason to fork."""
    letters = [int(i) for character in CALL for i in sample(character).token_ids_R]
    assert letters != sample(CALL).token_ids_R.tolist()
    conversation = started(rewriting_codec)
    response = conversation.append_response(sample([*letters, *sample("<|im_end|>").token_ids_R]))
    conversation.append_observations(SEEN)
    assert conversation.forks == 0
    assert conversation.prompt_ids_T[response.start : response.end - 1].tolist() == letters
    suffix = rewriting_codec.encode_observations(SEEN, closed=True)
    assert conversation.prompt_ids_T[response.end :].tolist() == suffix.tolist()


def test_rewritten_history_forks(rewriting_codec, rewriting_tokenizer, tool, sample):
    conversation = started(rewriting_codec, [tool])
    first = conversation.append_response(sample(CALL + "<|im_end|>"))
    conversation.append_observations(SEEN)
    second = conversation.append_response(sample("<think>\nhm\n</think>\n\n42<|im_end|>"))
    conversation.append_observations(NEXT)
    third = conversation.append_response(sample("43<|im_end|>"))

    assert conversation.forks == 1
    assert (first.segment, second.segment, third.segment) == (0, 0, 1)
    old, new = conversation.segments()
    assert len(old.token_ids_T) == second.end
    assert not new.response_mask_T[: third.start].any()
    history = [{"role": message.role, "content": message.content} for message in QUESTION]
    for action, observation in ((CALL, SEEN[0]), ("<think>\nhm\n</think>\n\n42", NEXT[0])):
        history += [
            {"role": "assistant", "content": action},
            {"role": observation.role, "content": observation.content},
        ]
    text = rewriting_tokenizer.apply_chat_template(
        history, tools=[tool.definition], tokenize=False, add_generation_prompt=True
    )
    assert "<think>" not in text
    assert rewriting_codec.decode(new.token_ids_T[: third.start]) == text
    assert new.token_ids_T[third.start :].tolist() == sample("43<|im_end|>").token_ids_R.tolist()


def test_a_special_token_spelled_by_the_model_stays_text_after_a_fork(rewriting_codec, sample):
    """The model copies an injected `<|im_end|>` letter by letter; re-rendering must not make it real."""
    letters = [int(i) for character in "<|im_end|>" for i in sample(character).token_ids_R]
    conversation = started(rewriting_codec)
    thought = sample("<think>\nx\n</think>\n\n").token_ids_R.tolist()
    stop = rewriting_codec.stop_token_ids[0]
    conversation.append_response(sample([*thought, *letters, stop]))
    conversation.append_observations(NEXT)
    assert conversation.forks == 1
    text = rewriting_codec.decode(conversation.prompt_ids_T)
    assert "assistant\n<|im_end|><|im_end|>\n" in text
    real = sum(i == stop for i in conversation.prompt_ids_T.tolist())
    assert real == text.count("<|im_end|>") - 1


def test_a_special_token_that_was_sampled_stays_one_after_a_fork(rewriting_codec, sample):
    conversation = started(rewriting_codec)
    conversation.append_response(sample("<think>\nx\n</think>\n\na<|endoftext|>b<|im_end|>"))
    conversation.append_observations(NEXT)
    assert conversation.forks == 1
    assert sample("<|endoftext|>").token_ids_R[0] in conversation.prompt_ids_T


ANSWERS = st.sampled_from(["42", CALL, "<think>\nhm\n</think>\n\n42", "<tool_call>{bad}</tool_call>", "<think>\ncut"])
TURNS = st.lists(st.tuples(ANSWERS, st.booleans(), st.sampled_from([SEEN, NEXT, SEEN + NEXT, SEEN + SEEN])), max_size=5)


@pytest.mark.parametrize("name", ["codec", "rewriting_codec"])
@given(turns=TURNS)
def test_each_sampled_token_is_trained_once_in_the_context_it_was_sampled_in(name, request, sample, turns):
    codec = request.getfixturevalue(name)
    conversation = started(codec)
    seen = []
    for version, (answer, closed, observations) in enumerate(turns):
        context = conversation.prompt_ids_T.tolist()
        generation = sample(answer + ("<|im_end|>" if closed else ""), version)
        seen.append((context, generation, conversation.append_response(generation)))
        conversation.append_observations(observations)
    segments = conversation.segments()
    assert len(segments) == conversation.forks + 1
    assert sum(int(s.response_mask_T.sum()) for s in segments) == sum(len(g.token_ids_R) for _, g, _ in seen)
    for context, generation, response in seen:
        segment = segments[response.segment]
        span = slice(response.start, response.end)
        assert segment.token_ids_T[: response.start].tolist() == context
        assert segment.token_ids_T[span].tolist() == generation.token_ids_R.tolist()
        assert segment.rollout_logprobs_T[span].tolist() == generation.logprobs_R.tolist()
        assert segment.weight_versions_T[span].tolist() == generation.weight_versions_R.tolist()
        assert segment.response_mask_T[span].all()
