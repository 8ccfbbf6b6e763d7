"""The sites without a browser: every page is served, forms are checked, what people write is escaped."""

import re
from collections import deque

import pytest

from agent_rl_envs.browser.sites.apps import APPS
from agent_rl_envs.browser.sites.server import EPISODE_HEADER, SECRET_HEADER
from agent_rl_envs.browser.sites.serving import APP_NAMES

pytestmark = pytest.mark.anyio
NASTY = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


def rows(text):
    """The first links of the rows of a page's table."""
    return re.findall(r"<tr><td>(?:<input[^>]*></td>\s*<td>)?<a [^>]*>([^<]+)</a>", text)


async def crawl(visitor, app):
    """All pages that can be reached by links, with their texts."""
    seen, queue = {}, deque(["/"])
    while queue and len(seen) < 150:
        path = queue.popleft()
        if path in seen:
            continue
        status, seen[path] = await visitor.get(app, path)
        assert status == 200, (app, path, seen[path])
        base = path.partition("?")[0]
        for link in visitor.links(seen[path]):
            if link.startswith(("/", "?")):
                queue.append(link if link[0] == "/" else base + link)
    return seen


@pytest.mark.parametrize("app", APP_NAMES)
async def test_every_link_leads_to_a_page_and_none_changes_anything(app, visitor):
    pages = await crawl(visitor, app)
    own = next(one for one in APPS if one.name == app)
    reached = {re.sub(r"\d+(-\d+)*", "N", path.partition("?")[0]) for path in pages}
    served = {re.sub(r"\{.*?\}", "N", path) for method, path, _ in own.routes if method == "GET"} - {"/suggest"}
    later = {"/checkout", "/registration/workshop", "/registration/review", "/application/letter"}
    assert served - reached <= later | {"/return/N"}, "a page that nothing leads to"
    assert await visitor.tables() == visitor.world.tables


def test_the_names_of_the_apps_are_those_that_are_routed():
    assert tuple(app.name for app in APPS) == APP_NAMES


async def test_what_people_write_is_escaped(visitor):
    await visitor.post("forum", "/board/1/new", title=NASTY[:90], text=NASTY)
    await visitor.post("mail", "/write", to="a@b.test", subject=NASTY, body=NASTY)
    await visitor.post(
        "calendar", "/new", title=NASTY[:90], day="2026-01-01", start="10:00", end="11:00", repeat="never"
    )
    await visitor.post("shop", "/addresses", label=NASTY[:40], recipient="x", street="y", postcode="12345", city=NASTY)
    places = (
        ("forum", "/thread/21"),
        ("mail", "/?folder=sent"),
        ("calendar", "/find?q=script"),
        ("shop", "/addresses"),
        ("shop", f"/?q={NASTY}"),
        ("forum", f"/search?q={NASTY}"),
    )
    for app, path in places:
        raw = (await visitor.http.get(f"http://{app}.test{path}")).text
        assert "&lt;script&gt;" in raw, (app, path)
        assert "<script>" not in raw
        assert "<img" not in raw


async def test_catalogue_filters_sorts_and_turns_pages(visitor):
    products = visitor.world.shop.products
    _, text = await visitor.get("shop", "/?category=Garden&sort=price, lowest first")
    cheap = sorted((p for p in products if p.category == "Garden"), key=lambda p: p.cents)
    assert rows(text) == [product.name for product in cheap[:10]]
    assert f"{len(cheap)} products found" in text
    _, text = await visitor.get("shop", "/?category=Garden&sort=price, lowest first&page=2")
    assert rows(text) == [product.name for product in cheap[10:]]
    for page in ("0", "-1", "99", "x", "9" * 30):
        assert (await visitor.get("shop", f"/?page={page}"))[0] == 200
    name = products[0].name
    assert (await visitor.http.get("http://shop.test/suggest", params={"q": name.lower()})).json() == [name]
    assert rows((await visitor.get("shop", "/?q=%25"))[1]) == []  # a per cent sign is none of the database's


async def test_a_cart_becomes_an_order(visitor):
    product = next(p for p in visitor.world.shop.products if p.stock and p.options)
    path = f"/product/{product.id}"
    assert (await visitor.post("shop", path, quantity="1", option="mauve"))[0] == 422
    assert (await visitor.post("shop", path, quantity="21", option=product.choices()[0]))[0] == 422
    assert "is in your cart" in (await visitor.post("shop", path, quantity="2", option=product.choices()[0]))[1]
    assert "no such code" in (await visitor.post("shop", "/cart/coupon", code="GRATIS"))[1]
    status, text = await visitor.post("shop", "/checkout", address="Home", shipping="standard")
    assert (status, "accept the terms" in text) == (422, True)
    assert 'value="standard"\n  checked' in text  # what was entered is there still
    _, text = await visitor.post("shop", "/checkout", address="Home", shipping="express", terms="yes")
    assert "Your order has the number" in text
    assert (await visitor.tables())["cart_lines"] == {}
    assert "Your cart is empty" in (await visitor.get("shop", "/checkout"))[1]


async def test_what_may_not_be_done_is_refused(visitor):
    shop, forum = visitor.world.shop, visitor.world.forum
    done = next(order for order in shop.orders if order.status != "processing")
    assert (await visitor.post("shop", f"/orders/{done.id}/cancel"))[0] == 403
    theirs = next(post for post in forum.posts if post.member_id != 1)
    assert (await visitor.post("forum", f"/post/{theirs.id}/edit", text="mine"))[0] == 403
    assert (await visitor.post("admin", "/staff/1", role="administrator"))[0] == 403
    assert (await visitor.post("forms", "/registration/review"))[0] == 403
    for path in (f"/product/{2**40}", f"/product/{'9' * 40}", "/product/999"):
        assert (await visitor.get("shop", path))[0] == 404
    assert (await visitor.get("calendar", "/day/2026-02-30"))[0] == 404
    assert await visitor.tables() == visitor.world.tables


async def test_roles_need_their_sign_in(visitor):
    staff = visitor.world.admin.staff
    assert "You are signed out" in (await visitor.post("admin", "/sign-out"))[1]
    assert (await visitor.get("admin", "/"))[0] == 403
    status, text = await visitor.post("admin", "/account", name=staff[0].name, password="guess")
    assert (status, "do not belong together" in text) == (422, True)
    assert (await visitor.post("admin", "/account", name=staff[0].name, password=staff[0].password))[0] == 200
    assert (await visitor.post("admin", "/customer/1", plan="free"))[0] == 403  # a viewer
    await visitor.post("admin", "/account", name=staff[2].name, password=staff[2].password)
    assert (await visitor.post("admin", "/staff/1", role="manager"))[0] == 200
    assert (await visitor.tables())["staff"][1]["role"] == "manager"


async def test_forms_of_several_pages_keep_what_was_entered(visitor):
    assert "not an e-mail" not in (await visitor.get("forms", "/registration"))[1]
    status, text = await visitor.post("forms", "/registration", name="Ann", email="ann", phone="")
    assert (status, "such as ann@example.com" in text, "fill in this field" in text) == (422, True, True)
    _, text = await visitor.post("forms", "/registration", name="Ann", email="ann@example.com", phone="1")
    assert "page 2 of 3" in text
    taken = {one.workshop for one in visitor.world.forms.registrations}
    workshop = next(one for one in ("Pottery", "Bookbinding", "Bread baking") if one not in taken)
    _, text = await visitor.post("forms", "/registration/workshop", workshop=workshop, size="M", dinner="yes", diet="")
    assert "choose one of the options" in text  # with dinner, a diet is needed
    _, text = await visitor.post("forms", "/registration/workshop", workshop=workshop, size="M", diet="vegan")
    assert "page 3 of 3" in text
    assert "Your registration was sent" in (await visitor.post("forms", "/registration/review"))[1]
    row = (await visitor.tables())["registrations"][3]
    assert (row["workshop"], row["diet"], row["dinner"]) == (workshop, "", 0)  # without dinner, there is no diet


async def test_days_and_times_are_checked(visitor):
    form = {"title": "x", "day": "2026-13-01", "start": "25:00", "end": "9", "repeat": "never"}
    status, text = await visitor.post("calendar", "/new", **form)
    assert (status, text.count('class="error">Please enter')) == (422, 3)
    form.update(day="2026-03-01", start="10:00", end="09:00")
    assert "has to be after the start" in (await visitor.post("calendar", "/new", **form))[1]
    status, text = await visitor.post("forms", "/repair", room="Kitchen", problem="water", day="2020-01-01")
    assert (status, "within the next 60 days" in text) == (422, True)


async def test_databases_are_behind_the_secret_and_apart(visitor):
    http = visitor.http
    for headers in ({}, {SECRET_HEADER: "guess"}):
        assert (await http.get("http://x/episodes/one", headers=headers)).status_code == 404
        assert (await http.delete("http://shop.test/episodes/one", headers=headers)).status_code == 404
    other = {EPISODE_HEADER: "two"}
    assert (await http.get("http://shop.test/", headers=other)).status_code == 404
    await visitor.post("shop", "/cart/1/remove")
    http.headers[SECRET_HEADER] = "open sesame"
    await http.put("http://x/episodes/two", content=visitor.world.image)
    cart = (await http.get("http://shop.test/cart", headers=other)).text
    assert "/cart/1/remove" in cart
    assert "/cart/1/remove" not in (await http.get("http://shop.test/cart")).text
    assert (await http.delete("http://x/episodes/two")).status_code == 204
    assert (await http.get("http://x/episodes/two")).status_code == 404


async def test_a_page_that_fails_is_told_to_who_judges(visitor, monkeypatch):
    monkeypatch.setattr("agent_rl_envs.browser.sites.shop.pages.CATEGORIES", None)
    status, text = await visitor.get("shop", "/")
    assert (status, text) == (500, "This page does not work at the moment.")
    response = await visitor.http.get("http://x/episodes/one", headers={SECRET_HEADER: "open sesame"})
    assert (response.status_code, "TypeError" in response.text) == (500, True)
