"""The only way out of an episode is its proxy: a server that may not be reached counts no request."""

import socket
from contextlib import closing

import anyio
import pytest

from agent_rl.errors import EnvironmentFailure, UserError
from agent_rl_tools.browser import Route, proxy

pytestmark = pytest.mark.anyio


@pytest.fixture
def other(sites):
    """A server that is on no allow-list."""
    return sites()


def refused_here(tools):
    """Of what was refused, what a page asked for, once or more; Chromium has wishes of its own, to other hosts."""
    return {host for host in tools.tabs.proxy.refused if host.startswith("127.0.0.1:")}


async def test_a_redirects_target_is_never_contacted(site, other, browsing, call):
    async with browsing(site.url) as tools:
        away = await call(tools, "navigate", url=f"{site.url}/to?url={other.url}/hats")
        assert "/to" in site.hits
        assert other.hits == []
        assert away.error == "tool_error"
        assert f"This address may not be reached: 127.0.0.1:{other.port}" in away.content
        assert refused_here(tools) == {f"127.0.0.1:{other.port}"}
        assert "'Shop'" in (await call(tools, "back")).content


async def test_hosts_on_the_list_are_reached(site, other, browsing, call):
    async with browsing(site.url, allowed_hosts=[f"127.0.0.1:{site.port}", f"127.0.0.1:{other.port}"]) as tools:
        assert "Two hats" in (await call(tools, "navigate", url=f"{site.url}/to?url={other.url}/hats")).content
        assert other.hits[0] == "/hats"


async def test_a_server_stands_in_for_a_host_and_is_told_whose_requests_these_are(
    site, other, browsing, call, monkeypatch
):
    contacted, connect = [], proxy._connect

    async def noting(host, port):
        contacted.append((host, port))
        return await connect(host, port)

    monkeypatch.setattr(proxy, "_connect", noting)
    routes = {"hats.test": Route(site.port, {"X-Who": "one"}), "caps.test": Route(other.port)}
    async with browsing("http://hats.test/hats", routes=routes) as tools:
        assert "http://hats.test/hats 'Hats'" in await tools.observe()
        assert (site.asked["host"], site.asked["x-who"]) == ("hats.test", "one")
        await tools.page.evaluate("fetch('/mine', {headers: {'x-who': 'two'}}).then(() => 0)")
        assert (site.hits[-1], site.asked.get_all("x-who")) == (
            "/mine",
            ["one"],
        )  # what the page says of itself does not count
        hits = len(site.hits)
        for url in (
            "https://hats.test/",
            "http://hats.test:81/",
            f"http://127.0.0.1:{site.port}/",
            "http://caps.test/",
        ):
            assert "may not be opened" in (await call(tools, "navigate", url=url)).content
        await tools.page.evaluate("new Promise(r => { new WebSocket('ws://hats.test/socket').onclose = r })")
        assert (len(site.hits), other.hits) == (hits, [])
        assert set(contacted) == {("127.0.0.1", site.port)}


TRIES = {
    "image": "new Promise(r => { const i = new Image(); i.onload = i.onerror = r; i.src = URL_ + '/image' })",
    "fetch": "fetch(URL_ + '/fetch', {mode: 'no-cors'}).catch(() => 0)",
    "form": "(() => { const f = document.createElement('form'); f.action = URL_; f.method = 'post';"
    " document.body.append(f); f.submit() })()",
    "frame": "new Promise(r => { const f = document.createElement('iframe'); f.src = URL_; f.onload = r;"
    " document.body.append(f) })",
    "beacon": "navigator.sendBeacon(URL_ + '/beacon', 'x')",
    "event source": "new Promise(r => { new EventSource(URL_ + '/events').onerror = r })",
    "prefetch": "document.head.insertAdjacentHTML('beforeend', `<link rel=prefetch href=${URL_}/p>"
    "<link rel=preconnect href=${URL_}><link rel=dns-prefetch href=${URL_}><link rel=prerender href=${URL_}>`)",
    "speculation": "(() => { const s = document.createElement('script'); s.type = 'speculationrules'; s.text ="
    " JSON.stringify({prefetch: [{source: 'list', urls: [URL_ + '/s']}], prerender: [{source: 'list', urls: [URL_]}]});"
    " document.head.append(s) })()",
    "worker": "new Promise(r => { const w = new Worker(URL.createObjectURL(new Blob(["
    "`fetch('${URL_}/worker', {mode: 'no-cors'}).catch(() => 0).then(() => postMessage(0))`]))); w.onmessage = r })",
    "web socket": "new Promise(r => { new WebSocket(URL_.replace('http', 'ws') + '/socket').onclose = r })",
    "popup": "window.open(URL_ + '/popup') && 0",
    "https": "fetch(URL_.replace('http', 'https'), {mode: 'no-cors'}).catch(() => 0)",
    "name": "fetch(URL_.replace('127.0.0.1', 'localhost'), {mode: 'no-cors'}).catch(() => 0)",
    "location": "location.href = URL_ + '/location'",
}


@pytest.mark.parametrize("name", TRIES)
async def test_nothing_that_a_page_tries_gets_out(site, other, browsing, name):
    async with browsing(site.url) as tools:
        script = f"(async () => {{ const URL_ = {other.url!r}; await ({TRIES[name]}) }})()"
        with anyio.move_on_after(5):
            await tools.page.evaluate(f"() => {{ {script} }}")
        with anyio.move_on_after(2):  # most of them are seen to be refused
            while not tools.tabs.proxy.refused:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        await anyio.sleep(0.1)
    assert other.hits == []


async def test_what_pages_try_would_arrive_if_it_were_allowed(site, other, browsing):
    """So the attempts above are real ones."""
    arrived = set()
    async with browsing(site.url, allowed_hosts=["127.0.0.1:*"]) as tools:
        for name in ("image", "fetch", "frame", "worker", "web socket", "beacon"):
            other.hits.clear()
            await tools.page.evaluate(f"(async () => {{ const URL_ = {other.url!r}; await ({TRIES[name]}) }})()")
            with anyio.move_on_after(3):
                while not other.hits:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
            if other.hits:
                arrived.add(name)
    assert arrived == {"image", "fetch", "frame", "worker", "web socket", "beacon"}


async def test_a_service_worker_cannot_be_registered(site, browsing):
    site.pages(**{"sw.js": "fetch('/from-worker')"})
    async with browsing(site.url) as tools:
        await tools.page.evaluate("navigator.serviceWorker?.register('/sw.js').catch(() => 0)")
        await anyio.sleep(0.2)
    assert "/from-worker" not in site.hits


async def test_webrtc_sends_nothing_by_udp(site, browsing):
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stun:
        stun.bind(("127.0.0.1", 0))
        stun.settimeout(0)
        script = """async (port) => {
            const peer = new RTCPeerConnection({iceServers: [{urls: `stun:127.0.0.1:${port}`}]});
            const found = [];
            peer.onicecandidate = (event) => event.candidate && found.push(event.candidate.candidate);
            peer.createDataChannel("out");
            await peer.setLocalDescription(await peer.createOffer());
            await new Promise((resolve) => setTimeout(resolve, 1000));
            return found;
        }"""
        async with browsing(site.url) as tools:
            assert await tools.page.evaluate(script, stun.getsockname()[1]) == []
        with pytest.raises(BlockingIOError):
            stun.recv(100)


async def test_an_episode_may_not_use_the_proxy_of_another(site, other, browsing):
    async with browsing(site.url) as tools, browsing(other.url) as second:
        port = second.tabs.proxy.port
        answer = await tools.page.evaluate(f"fetch('http://127.0.0.1:{port}/', {{mode: 'no-cors'}}).catch(() => 0)")
        assert answer is not None
        assert refused_here(tools) == {f"127.0.0.1:{port}"}
    assert all(hit != "/favicon" for hit in other.hits)


async def test_a_body_is_passed_on_and_a_connection_used_again(site, browsing):
    async with browsing(site.url) as tools:
        post = "fetch('/post', {method: 'POST', body: 'x'.repeat(300000)}).then((r) => r.text())"
        assert await tools.page.evaluate(post) == "posted " + "x" * 300_000
        texts = await tools.page.evaluate(
            "Promise.all([1, 2, 3].map((i) => fetch('/hats?' + i).then((r) => r.text())))"
        )
        assert len(set(texts)) == 1


async def test_web_sockets_pass_through_where_they_may(browsing, site):
    async def echo(stream):
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive()
            heads.append(head)
            await stream.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    heads = []
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with browsing(site.url, allowed_hosts=[f"127.0.0.1:{site.port}", f"127.0.0.1:{port}"]) as tools:
            await tools.page.evaluate(
                f"new Promise((r) => {{ new WebSocket('ws://127.0.0.1:{port}/socket').onclose = r }}).then(() => 0)"
            )
        tasks.cancel_scope.cancel()
    assert heads
    assert heads[0].startswith(b"GET /socket HTTP/1.1")


async def test_the_first_page_must_be_allowed_and_there(browser, site):
    with pytest.raises(UserError, match=r"not among the allowed hosts: shop\.test"):
        await browser.tools(site.url, allowed_hosts=["shop.test"])
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
    with pytest.raises(EnvironmentFailure, match=f"does not load: This host does not answer: 127.0.0.1:{port}"):
        await browser.tools(f"http://127.0.0.1:{port}/")
