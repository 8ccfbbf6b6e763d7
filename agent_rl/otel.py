"""Finished episodes as OpenTelemetry spans, sent to where the standard `OTEL_*` variables say. An extra."""

from __future__ import annotations

import importlib
import json
from typing import Any, Self

from agent_rl.errors import ConfigError
from agent_rl.trace import Span, episode_spans
from agent_rl.types import Group

_NAME = "agent-rl"


class OpenTelemetry:
    """`with OpenTelemetry() as telemetry:`, then `telemetry.export(group)` for each finished group.

    An episode is a span with its setup, generations and steps as children. Exports in a thread of the SDK; `provider`
    replaces the one that sends over OTLP. Raises `ConfigError` where the extra `otel` is missing.
    """

    def __init__(self, provider: Any = None) -> None:
        try:
            self._api: Any = importlib.import_module("opentelemetry.trace")
            self._provider: Any = _otlp_provider() if provider is None else provider
        except ImportError as error:
            raise ConfigError(f"OpenTelemetry is missing ({error}): pip install 'agent-rl[otel]'.") from error
        self._tracer: Any = self._provider.get_tracer(_NAME)

    def export(self, group: Group) -> None:
        """Queue the spans of all members."""
        for episode in group.trajectories:
            whole, *parts = episode_spans(episode)
            parent = self._start(whole, None)
            for part in parts:
                self._end(self._start(part, self._api.set_span_in_context(parent)), part)
            if episode.failure is not None:
                parent.set_status(self._api.StatusCode.ERROR, episode.failure.message)
            self._end(parent, whole)

    def _start(self, span: Span, context: Any) -> Any:
        attributes = {
            f"agent_rl.{name}": _attribute(value) for name, value in span.details.items() if value is not None
        }
        attributes |= {"agent_rl.group": span.group, "agent_rl.member": span.member}
        return self._tracer.start_span(
            f"{span.category} {span.name}" if span.category == "episode" else span.name,
            context=context,
            start_time=_nanoseconds(span.began_at),
            attributes=attributes,
        )

    def _end(self, started: Any, span: Span) -> None:
        started.end(end_time=_nanoseconds(span.began_at + span.duration_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Send what is queued."""
        self._provider.shutdown()


def _otlp_provider() -> Any:
    load = importlib.import_module
    sdk, export = load("opentelemetry.sdk.trace"), load("opentelemetry.sdk.trace.export")
    exporter = load("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter()
    provider = sdk.TracerProvider(resource=load("opentelemetry.sdk.resources").Resource.create({"service.name": _NAME}))
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return provider


def _attribute(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
