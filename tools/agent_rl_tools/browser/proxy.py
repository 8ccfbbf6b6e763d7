"""A forwarding proxy of one episode: the only way out of its browser context, and only to where it may go.

Each context has a proxy on a port of its own, so that nothing has to say whose request this is. Refused requests are
answered here: neither is their host looked up nor contacted. What is inside a tunnel (https, web sockets) is not read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import anyio
import h11
from anyio.abc import ByteStream, SocketAttribute, SocketStream, TaskGroup

from agent_rl.errors import UserError
from agent_rl_tools.browser.policy import AllowList, address

ANSWERED = "x-agent-rl-proxy"  # the header of what no server has said
_CONNECT_TIMEOUT_S = 10.0
_LOCAL = "127.0.0.1"
_HTTP = 80
_CHUNK = 65536
_HIGHEST_PORT = 65535
_NOTED = 100  # refusals that are remembered
_HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade"}
_UNREACHABLE = (TimeoutError, OSError, UnicodeError)  # a name that cannot be one is a UnicodeError
_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


@dataclass(frozen=True, slots=True)
class Route:
    """A server on this machine that stands in for a host on port 80; `headers` tell it whose requests these are.

    What the browser itself sends under their names is dropped.
    """

    port: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Proxy:
    """Where a context's requests go. `policy` and `routes`, by host, may be replaced; `refused` are hosts that were
    asked for in vain."""

    port: int
    policy: AllowList
    routes: Mapping[str, Route] = field(default_factory=dict[str, Route])
    refused: list[str] = field(default_factory=list[str])

    def admit(self, host: str, port: int) -> bool:
        """Whether this may be contacted; notes what may not."""
        if self.policy.allows(host, port):
            return True
        if len(self.refused) < _NOTED:
            self.refused.append(f"{host}:{port}")
        return False

    def route(self, host: str, port: int) -> Route | None:
        """The server that stands in for this host."""
        return self.routes.get(host) if port == _HTTP else None


@asynccontextmanager
async def open_proxy(policy: AllowList) -> AsyncGenerator[Proxy, None]:
    """A proxy on a free port of this machine, for as long as the block lasts."""
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(await anyio.create_tcp_listener(local_host="127.0.0.1"))
        proxy = Proxy(listener.extra(SocketAttribute.local_port), policy)

        async def serve(client: SocketStream) -> None:
            async with client:
                try:
                    await _Connection(proxy, client).serve()
                except (*_GONE, h11.ProtocolError):
                    return  # either side hung up, or does not speak HTTP: nobody is left to be told

        tasks: TaskGroup = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(listener.serve, serve)
        yield proxy


class _Connection:
    """One connection of the browser's: requests one after another, or a tunnel."""

    def __init__(self, proxy: Proxy, client: SocketStream) -> None:
        self._proxy, self._client = proxy, client
        self._http = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        while True:
            request = await _next_event(self._http, self._client)
            if not isinstance(request, h11.Request):
                return
            if request.method == b"CONNECT":
                return await self._tunnel(request.target.decode("latin-1"))
            if not await self._forward(request):
                return
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _tunnel(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        if not port.isdecimal() or int(port) > _HIGHEST_PORT or not self._proxy.admit(host, int(port)):
            return await self._answer(403, target)
        try:
            if self._proxy.route(host.lower(), int(port)):
                raise OSError("a stand-in speaks plain HTTP, and its name cannot be looked up")
            upstream = await _connect(host.strip("[]"), int(port))
        except _UNREACHABLE:
            return await self._answer(502, target)
        async with upstream:
            await self._client.send(self._http.send(h11.Response(status_code=200, headers=[])) or b"")
            early, _ = self._http.trailing_data
            if early:
                await upstream.send(early)
            await _relay(self._client, upstream)

    async def _forward(self, request: h11.Request) -> bool:
        """Pass a request on; whether the connection may be used for another."""
        url = request.target.decode("latin-1")
        try:
            host, port = address(url)
        except UserError:  # asked as a server, not as a proxy
            await self._answer(400, url)
            return False
        if not self._proxy.admit(host, port) or not url.startswith("http://"):
            await self._answer(403, f"{host}:{port}")
            return False
        route = self._proxy.route(host, port)
        try:
            upstream = await (_connect(host, port) if route is None else _connect(_LOCAL, route.port))
        except _UNREACHABLE:
            await self._answer(502, f"{host}:{port}")
            return False
        async with upstream:
            return await self._exchange(request, upstream, route.headers if route is not None else {})

    async def _exchange(self, request: h11.Request, upstream: ByteStream, more: Mapping[str, str]) -> bool:
        server = h11.Connection(h11.CLIENT)
        path = b"/" + request.target.split(b"://", 1)[1].partition(b"/")[2]
        ours = [(name.lower().encode(), value.encode()) for name, value in more.items()]
        theirs = [header for header in _end_to_end(request.headers) if header[0].lower() not in dict(ours)]
        headers = [*theirs, *ours, (b"Connection", b"close")]
        passed_on = h11.Request(method=request.method, target=path, headers=headers)
        await upstream.send(server.send(passed_on) or b"")
        while isinstance(part := await _next_event(self._http, self._client), h11.Data):
            await upstream.send(server.send(h11.Data(data=part.data)) or b"")
        await upstream.send(server.send(h11.EndOfMessage()) or b"")
        while True:
            event = await _next_event(server, upstream)
            if isinstance(event, h11.InformationalResponse):
                continue
            if isinstance(event, h11.Response):
                event = h11.Response(
                    status_code=event.status_code, headers=_end_to_end(event.headers), reason=event.reason
                )
            elif not isinstance(event, h11.Data | h11.EndOfMessage):
                return False  # the server hung up: so do we, and the browser sees what it would have seen
            await self._client.send(self._http.send(event) or b"")
            if isinstance(event, h11.EndOfMessage):
                return True

    async def _answer(self, status: int, target: str) -> None:
        """Our own answer, after which the connection is closed."""
        said = {400: "This is a proxy.", 403: "This address may not be reached", 502: "This host does not answer"}
        body = f"{said[status]}: {target}".encode()
        headers = [
            (b"Content-Type", b"text/plain"),
            (b"Content-Length", b"%d" % len(body)),
            (b"Connection", b"close"),
            (ANSWERED.encode(), body),
        ]
        parts = (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        await self._client.send(b"".join(self._http.send(part) or b"" for part in parts))


async def _connect(host: str, port: int) -> SocketStream:
    with anyio.fail_after(_CONNECT_TIMEOUT_S):
        return await anyio.connect_tcp(host, port)


async def _next_event(http: h11.Connection, stream: ByteStream) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    while (event := http.next_event()) is h11.NEED_DATA:
        try:
            http.receive_data(await stream.receive(_CHUNK))
        except anyio.EndOfStream:
            http.receive_data(b"")
    return event


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """What is for the other end; `Transfer-Encoding` stays, since h11 frames bodies by it."""
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


async def _relay(one: ByteStream, other: ByteStream) -> None:
    """Bytes both ways, until either side ends."""

    async def pump(source: ByteStream, sink: ByteStream) -> None:
        try:
            async for data in source:
                await sink.send(data)
        except _GONE:
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump, one, other)
        tasks.start_soon(pump, other, one)
