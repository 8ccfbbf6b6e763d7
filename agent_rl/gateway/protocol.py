"""Chat completions as JSON: requests in, replies, streams and errors out. Pure: no server, no tokens, no engine.

What a program asks for is done or refused in one sentence; nothing is ignored that would change the answer. Exceptions,
because the episode is not the program's to change: every model name is the policy, and `strict` schemas are not
enforced, so that the model's mistakes reach the program.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from agent_rl.chat.wire import Wire, WireError, message_from_wire, message_to_wire
from agent_rl.errors import AgentRLError, did_you_mean
from agent_rl.gateway.history import Definition
from agent_rl.types import FinishReason, Message

# Values that change nothing, of parameters that are not offered; `...`: any value changes nothing here.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": (),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "reasoning_effort": (),
    **dict.fromkeys(("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"), (...,)),
    **dict.fromkeys(("service_tier", "store", "user", "verbosity"), (...,)),
}
_OFFERED = {
    *("model", "messages", "tools", "tool_choice", "max_tokens", "max_completion_tokens", "temperature", "top_p"),
    *("stop", "seed", "stream", "stream_options"),
}
_MOST_STOPS = 4

Number: TypeAlias = int | float


class Refused(AgentRLError):
    """A request that gets an error: `status` is the HTTP one, `code` and `kind` are OpenAI's `code` and `type`."""

    def __init__(
        self, message: str, *, status: int = 400, code: str | None = None, kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.kind = kind

    def to_wire(self) -> Wire:
        """The body of the error."""
        return {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.code}}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request for a completion. `None`: the program leaves it to the server."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Definition, ...] = ()
    may_call: bool = True
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    stream_usage: bool = False


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the program gets to see of a response."""

    id: str
    created: int
    model: str
    message: Message
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> Wire:
        """Counts of tokens."""
        prompt, sampled = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}

    @property
    def _wire_finish(self) -> str:
        if self.finish_reason is FinishReason.LENGTH:
            return "length"
        return "tool_calls" if self.message.tool_calls else "stop"

    def to_wire(self) -> Wire:
        """The body of an answer in one piece."""
        choice = {
            "index": 0,
            "message": message_to_wire(self.message),
            "logprobs": None,
            "finish_reason": self._wire_finish,
        }
        return self._envelope("chat.completion", [choice]) | {"usage": self.usage}

    def to_events(self, usage: bool) -> Iterator[str]:
        """The answer as server-sent events. An engine answers in one piece, so each part comes in one piece."""
        wire = message_to_wire(self.message)
        calls = [{"index": index, **call} for index, call in enumerate(wire.pop("tool_calls", ()))]
        deltas: list[Wire] = [wire, *({"tool_calls": [call]} for call in calls)]
        choices: list[Wire] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": self._wire_finish})
        for choice in choices:
            yield _event(self._envelope("chat.completion.chunk", [choice]))
        if usage:
            yield _event(self._envelope("chat.completion.chunk", []) | {"usage": self.usage})
        yield "data: [DONE]\n\n"

    def _envelope(self, kind: str, choices: list[Wire]) -> Wire:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def _event(data: Wire) -> str:
    return f"data: {json.dumps(data)}\n\n"


def parse_request(body: bytes) -> ChatRequest:
    """Raises `Refused` for what is not JSON, not a request, or not offered."""
    try:
        data: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"The body is not valid JSON: {error}.") from error
    if not isinstance(data, dict):
        raise Refused("The body must be a JSON object.")
    given = {name: value for name, value in cast("dict[str, Any]", data).items() if value is not None}
    _refuse_what_is_not_offered(given)
    tools, may_call = _tools(given)
    options = _checked(given, "stream_options", dict) or {}
    limits = [_checked(given, name, int) for name in ("max_completion_tokens", "max_tokens")]
    max_tokens = next((limit for limit in limits if limit is not None), None)
    if max_tokens is not None and max_tokens < 1:
        raise Refused("max_tokens must be at least 1.")
    return ChatRequest(
        model=_checked(given, "model", str) or "policy",
        messages=_messages(given),
        tools=tools,
        may_call=may_call,
        max_tokens=max_tokens,
        temperature=_within(given, "temperature", 0, 2),
        top_p=_within(given, "top_p", 0, 1),
        stop=_stops(given.get("stop", ())),
        seed=_checked(given, "seed", int),
        stream=bool(_checked(given, "stream", bool)),
        stream_usage=bool(options.get("include_usage")),
    )


def _refuse_what_is_not_offered(given: Wire) -> None:
    for name, value in given.items():
        if name in _OFFERED:
            continue
        if name not in _NEUTRAL:
            raise Refused(f"Unknown parameter {name!r}.{did_you_mean(name, _OFFERED)}", code="unknown_parameter")
        neutral = _NEUTRAL[name]
        if neutral != (...,) and value not in neutral:
            instead = f" or set it to {json.dumps(neutral[0])}" if neutral else ""
            raise Refused(
                f"{name}={json.dumps(value)} is not offered; leave it out{instead}.", code="unsupported_value"
            )


def _messages(given: Wire) -> tuple[Message, ...]:
    listed = _checked(given, "messages", list)
    if not listed:
        raise Refused("messages is missing or empty.")
    try:
        messages = tuple(message_from_wire(wire, f"messages[{index}]") for index, wire in enumerate(listed))
    except WireError as error:
        raise Refused(str(error)) from error
    wrong = [call.error for message in messages for call in message.tool_calls if call.error is not None]
    if wrong:
        raise Refused(wrong[0])
    if messages[-1].role == "assistant":
        raise Refused("The last message must not be the assistant's: a response cannot be continued.")
    return messages


def _tools(given: Wire) -> tuple[tuple[Definition, ...], bool]:
    """The tools, and whether the model may call them. `none` keeps them in the prompt, which so stays the same."""
    choice = given.get("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise Refused(f"tool_choice={json.dumps(choice)} is not offered; use auto or none.", code="unsupported_value")
    listed = _checked(given, "tools", list) or []
    return tuple(_definition(tool, f"tools[{index}]") for index, tool in enumerate(listed)), choice == "auto"


def _definition(tool: object, where: str) -> Definition:
    data = cast("Wire", tool) if isinstance(tool, dict) else {}
    function = data.get("function")
    if data.get("type") != "function" or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Refused(f"{where} must be an object of type function, with a function that has a name.")
    fields = {name: value for name, value in cast("Wire", function).items() if name != "strict"}
    return Definition({"type": "function", "function": fields})


def _stops(stop: object) -> tuple[str, ...]:
    listed = (
        [stop]
        if isinstance(stop, str)
        else list(cast("list[object]", stop))
        if isinstance(stop, list | tuple)
        else [None]
    )
    texts = tuple(text for text in listed if isinstance(text, str) and text)
    if len(texts) < len(listed) or len(texts) > _MOST_STOPS:
        raise Refused(f"stop must be a text or up to {_MOST_STOPS} texts, none of them empty.")
    return texts


def _checked(given: Wire, name: str, kind: type[Any]) -> Any:
    value = given.get(name)
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise Refused(f"{name} must be of type {kind.__name__}, not {type(value).__name__}.")
    return value


def _within(given: Wire, name: str, low: Number, high: Number) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Refused(f"{name} must be a number from {low} to {high}.")
    return float(value)
