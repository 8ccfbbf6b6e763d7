"""The same time and the same chance in every episode that asks for it."""

import pytest

from agent_rl_tools.browser import PageConfig

pytestmark = pytest.mark.anyio

DRAWS = (
    """() => [Math.random(), Math.random(), crypto.getRandomValues(new Uint32Array(3)).join(), crypto.randomUUID()]"""
)


async def test_chance_is_seeded_by_episode_and_page(site, browsing):
    async def drawn(seed, path="/"):
        async with browsing(site.url + path, page=PageConfig(random_seed=seed)) as tools:
            return await tools.page.evaluate(DRAWS)

    first = await drawn(1)
    assert await drawn(1) == first
    assert (await drawn(2))[0] != first[0]
    assert (await drawn(1, "/hats"))[0] != first[0]
    assert len(set(first)) == 4
    assert 0 <= first[0] < 1
    assert await drawn(None) != await drawn(None)


async def test_a_stepped_clock_goes_with_the_actions(site, browsing, call):
    site.pages(
        clock="""<p id=p>0</p><script>let n = 0; setInterval(() => p.textContent = ++n, 500);
        const frames = []; requestAnimationFrame(function draw(now) { frames.push(now); requestAnimationFrame(draw) })
        </script>"""
    )
    seen = []
    for _ in range(2):
        async with browsing(f"{site.url}/clock", page=PageConfig(clock="stepped", step_s=2)) as tools:
            begun = await tools.page.evaluate("[Date.now(), p.textContent, frames.length]")
            await tools.page.wait_for_timeout(300)
            assert await tools.page.evaluate("[Date.now(), p.textContent, frames.length]") == begun
            await call(tools, "press", key="a")
            moved = await tools.page.evaluate("[Date.now(), p.textContent, frames.length]")
            assert moved[0] - begun[0] == 2000
            assert int(moved[1]) - int(begun[1]) == 4
            seen.append((begun, moved))
    assert seen[0] == seen[1]


async def test_the_clock_is_real_otherwise(site, browsing):
    async with browsing(site.url) as tools:
        began = await tools.page.evaluate("Date.now()")
        await tools.page.wait_for_timeout(50)
        assert await tools.page.evaluate("Date.now()") > began
