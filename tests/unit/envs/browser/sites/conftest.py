import re
from contextlib import asynccontextmanager
from html import unescape

import httpx
import pytest

from agent_rl_envs.browser.sites.database import tables_of
from agent_rl_envs.browser.sites.server import EPISODE_HEADER, SECRET_HEADER, make_site
from agent_rl_envs.browser.sites.world import make_world

SECRET = "open sesame"


class Visitor:
    """Somebody at the sites, without a browser: follows redirects, keeps cookies."""

    def __init__(self, http, world):
        self.http, self.world = http, world

    async def get(self, app, path="/"):
        """Status and text of a page."""
        response = await self.http.get(f"http://{app}.test{path}", follow_redirects=True)
        return response.status_code, unescape(response.text)

    async def post(self, app, path, **form):
        response = await self.http.post(f"http://{app}.test{path}", data=form, follow_redirects=True)
        return response.status_code, unescape(response.text)

    async def tables(self):
        return tables_of(await self.image())

    async def image(self):
        response = await self.http.get("http://x/episodes/one", headers={SECRET_HEADER: SECRET})
        assert response.status_code == 200, response.text
        return response.content

    def links(self, text):
        return re.findall(r'href="([^"]+)"', text)


@asynccontextmanager
async def visiting(number=0):
    world = make_world(number)
    transport = httpx.ASGITransport(make_site(SECRET))
    async with httpx.AsyncClient(transport=transport, headers={EPISODE_HEADER: "one"}) as http:
        await http.put("http://x/episodes/one", content=world.image, headers={SECRET_HEADER: SECRET})
        yield Visitor(http, world)


@pytest.fixture
async def visitor():
    async with visiting() as one:
        yield one
