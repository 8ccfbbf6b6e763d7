"""What a model sees and does, on pages of a small server in a real Chromium."""

import io

import anyio
import pytest
from PIL import Image

from agent_rl_tools.browser import ViewConfig

pytestmark = pytest.mark.anyio


async def test_a_page_is_seen_and_acted_on(site, browsing, call, ref_of):
    async with browsing(site.url) as tools:
        look = (await call(tools, "snapshot")).content
        assert look.startswith(f"{site.url}/ 'Shop'")
        pressed = await call(tools, "click", ref=ref_of(look, "Press"))
        assert 'button "Pressed"' in pressed.content
        chosen = await call(tools, "select", ref=ref_of(look, "Size"), option="L")
        assert 'combobox "Size" = "L"' in chosen.content
        await call(tools, "type", ref=ref_of(look, "Search"), text="blue")
        found = await call(tools, "type", ref=ref_of(look, "Search"), text="red hat", submit=True)
        assert "Found {'q': ['red hat'], 'size': ['L']}" in found.content
        assert "'Shop'" in (await call(tools, "back")).content


async def test_scrolling_shows_what_was_not_in_view(site, browsing, call):
    async with browsing(site.url) as tools:
        top = (await call(tools, "snapshot")).content
        assert "Bottom" not in top
        assert "pixels below. Scroll to see them." in top
        for _ in range(5):
            bottom = (await call(tools, "scroll", direction="down")).content
        assert "Bottom" in bottom
        assert 'button "Press"' not in bottom
        assert 'button "Press"' in (await call(tools, "press", key="Home")).content


async def test_ids_stay_those_of_their_elements(site, browsing, call, ref_of):
    site.pages(list="<ul id=l><li><button>b</button></ul><button onclick='l.prepend(l.lastChild.cloneNode(true))'>+")
    async with browsing(f"{site.url}/list") as tools:
        look = (await call(tools, "snapshot")).content
        more = (await call(tools, "click", ref=ref_of(look, "+"))).content
        before, after = ref_of(look, "b"), [line.strip() for line in more.splitlines() if '"b"' in line]
        assert after[1].startswith(f"[{before}]")
        assert not after[0].startswith(f"[{before}]")


async def test_tabs(site, browsing, call, ref_of):
    async with browsing(site.url) as tools:
        look = (await call(tools, "snapshot")).content
        opened = (await call(tools, "click", ref=ref_of(look, "Hats elsewhere"))).content
        with anyio.fail_after(10):  # the browser tells of a new tab when it has made it
            while "Two hats" not in (await call(tools, "snapshot")).content:
                pass
        assert f"Tabs: 0: {site.url}/, *1: {site.url}/hats" in (await call(tools, "snapshot")).content, opened
        assert "'Shop'" in (await call(tools, "tab", index=0)).content
        assert "Tabs" not in (await call(tools, "tab", index=1, close=True)).content
        assert (await call(tools, "tab", index=0, close=True)).error == "tool_error"
        assert (await call(tools, "tab", index=7)).error == "tool_error"


async def test_mistakes_are_told_to_the_model(site, browsing, call, ref_of):
    site.pages(
        covered="""<button>Under</button><button disabled>Off</button><input readonly aria-label=Fixed>
        <div style="position: fixed; inset: 0">Wait</div>"""
    )
    async with browsing(f"{site.url}/covered") as tools:
        look = (await call(tools, "snapshot")).content

        async def told(name, **arguments):
            result = await call(tools, name, **arguments)
            assert result.error == "tool_error"
            return result.content

        assert "is covered by another element: <div> Wait" in await told("click", ref=ref_of(look, "Under"))
        assert "is disabled" in await told("click", ref=ref_of(look, "Off"))
        assert "can only be read" in await told("type", ref=ref_of(look, "Fixed"), text="x")
        assert "no list to choose from" in await told("select", ref=ref_of(look, "Off"), option="x")
        assert "not on the page any more" in await told("click", ref="e999")
        assert "is no ref" in await told("click", ref="Press")
        assert "may not be opened. Allowed: 127.0.0.1" in await told("navigate", url="http://example.org/")
        assert "may not be opened" in await told("navigate", url="file:///etc/passwd")
        assert "may not be opened" in await told("navigate", url="javascript:alert(1)")


async def test_what_is_partly_covered_is_clicked_where_it_shows(site, browsing, call, ref_of):
    site.pages(
        overlap="""<style>button, div { position: absolute; left: 20px; top: 20px; width: 100px; height: 40px }</style>
        <button onclick="document.title = 'clicked below'">Below</button>
        <div style="left: 45px; top: 25px">Above</div>"""
    )
    async with browsing(f"{site.url}/overlap") as tools:
        look = (await call(tools, "snapshot")).content
        assert "clicked below" in (await call(tools, "click", ref=ref_of(look, "Below"))).content


async def test_fields_of_all_kinds(site, browsing, call, ref_of):
    site.pages(
        fields="""<input type=date aria-label=Day><input type=password aria-label=Word><input type=checkbox id=c>
        <label for=c>Agree</label><textarea aria-label=Text>old</textarea><div contenteditable aria-label=Rich>old</div>
        <select multiple aria-label=Many><option>A<option>B<option>C</select>"""
    )
    async with browsing(f"{site.url}/fields", view=ViewConfig(observation="elements")) as tools:
        look = (await call(tools, "snapshot")).content
        assert 'listbox "Many" = "" of A | B | C' in look
        await call(tools, "type", ref=ref_of(look, "Day"), text="2024-02-29")
        wrong = await call(tools, "type", ref=ref_of(look, "Day"), text="tomorrow")
        assert wrong.error == "tool_error"
        await call(tools, "type", ref=ref_of(look, "Day"), text="2024-02-29")
        await call(tools, "type", ref=ref_of(look, "Word"), text="secret")
        await call(tools, "click", ref=ref_of(look, "Agree"))
        await call(tools, "type", ref=ref_of(look, "Text"), text="")
        await call(tools, "type", ref=ref_of(look, "Rich"), text="n" * 400)
        await call(tools, "select", ref=ref_of(look, "Many"), option="A")
        done = (await call(tools, "select", ref=ref_of(look, "Many"), option="C")).content
        assert 'textbox "Day" = "2024-02-29"' in done
        assert 'textbox "Word" = "\u2022\u2022\u2022\u2022\u2022\u2022"' in done
        assert 'checkbox "Agree" (checked)' in done
        assert 'textbox "Text" = ""' in done
        assert 'listbox "Many" = "A, C"' in done
        assert "n" * 400 in await tools.page.inner_text("[contenteditable]")


async def test_pointer_and_places(site, browsing, call, ref_of):
    site.pages(
        drag="""<div id=d style="position: absolute; left: 10px; top: 10px; width: 20px; height: 20px;
        z-index: 1; user-select: none">D</div>
        <svg style="position: absolute; left: 300px; top: 100px"><circle r=20 cx=40 cy=40 fill=red></circle></svg>
        <svg class="icon bin" onclick="1" style="position: absolute; top: 400px; height: 20px"></svg>
        <p id=p style="position: absolute; top: 300px" onmouseover="this.textContent = 'Over'">Hover</p><script>
        onclick = (e) => document.title = [e.clientX, e.clientY];
        d.onmousedown = () => onmousemove = (e) => { d.style.left = e.clientX + "px"; d.style.top = e.clientY + "px" };
        onmouseup = () => onmousemove = null;</script>"""
    )
    async with browsing(f"{site.url}/drag") as tools:
        look = (await call(tools, "snapshot")).content
        assert 'svg ".icon.bin"' in look  # no text, no colour: its classes
        assert "'40,50'" in (await call(tools, "click_at", x=40, y=50)).content
        await call(tools, "drag", ref=ref_of(look, "D"), to_ref=ref_of(look, "red"))
        assert await tools.page.evaluate("[d.style.left, d.style.top]") == ["340px", "140px"]
        await call(tools, "drag", ref=ref_of(look, "D"), dx=100, dy=60)
        assert await tools.page.evaluate("d.getBoundingClientRect().x") == pytest.approx(450, abs=2)
        box = await tools.page.locator("#p").bounding_box()
        await call(tools, "click_at", x=box["x"] + 5, y=box["y"] + 5)
        assert "Over" in (await call(tools, "snapshot")).content


async def test_frames_and_shadow_roots_belong_to_the_page(site, browsing, call, ref_of):
    site.pages(
        outer="""<iframe src=/inner style="margin: 50px" title=Inner></iframe><x-box></x-box><script>
        customElements.define("x-box", class extends HTMLElement { connectedCallback() {
            this.attachShadow({mode: "open"}).innerHTML = "<button onclick='this.textContent = 1'>Shadow</button>" } })
        </script>""",
        inner="<button onclick=\"this.textContent = 'Done'\">Inside</button>",
    )
    async with browsing(f"{site.url}/outer") as tools:
        look = (await call(tools, "snapshot")).content
        inside = ref_of(look, "Inside")
        assert inside.startswith("f1e")
        assert 'button "Done"' in (await call(tools, "click", ref=inside)).content
        assert 'button "1"' in (await call(tools, "click", ref=ref_of(look, "Shadow"))).content


async def test_observations_have_a_limit(site, browsing, call):
    site.pages(long="".join(f"<a href=/{i}>link number {i}</a>" for i in range(200)))
    view = ViewConfig(viewport_only=False, max_chars=1000)
    async with browsing(f"{site.url}/long", view=view) as tools:
        look = (await call(tools, "snapshot")).content
        assert "link number 3" in look
        assert len(look) < 1200
        shown = look.count("link number")
        assert f"[... {200 - shown} more lines do not fit and are not shown ...]" in look


async def test_pictures_have_the_same_ids_drawn_on_them(site, browsing, tmp_path):
    async with browsing(site.url, view=ViewConfig(screenshots=tmp_path / "seen")) as tools:
        await tools.observe()
        [kept] = (tmp_path / "seen").iterdir()
        marked = Image.open(io.BytesIO(kept.read_bytes())).convert("RGB")
        plain = Image.open(io.BytesIO(await tools.screenshot(marks=False))).convert("RGB")
        assert marked.size == plain.size == (1280, 800)
        button = tools.view.find("button", "Press")
        x, y, width, height = button.box
        edges = [(x, y + height // 2), (x + width - 1, y + height // 2), (x + width // 2, y + height - 1)]
        assert len({marked.getpixel(edge) for edge in edges}) == 1
        assert all(marked.getpixel(edge) != plain.getpixel(edge) for edge in edges)


async def test_stop_keeps_the_answer(site, browsing, call):
    async with browsing(site.url) as tools:
        assert tools.submitted is None
        await call(tools, "stop", answer="42")
        assert tools.submitted == "42"
