import pytest

from agent_rl.errors import UserError
from agent_rl_tools.browser import AllowList
from agent_rl_tools.browser.policy import address


@pytest.mark.parametrize(
    ("entry", "allowed", "refused"),
    [
        ("shop.test", ["http://shop.test/x", "https://SHOP.test."], ["http://shop.test:8080", "http://a.shop.test"]),
        ("shop.test:8000", ["http://shop.test:8000"], ["http://shop.test", "http://shop.test:80"]),
        ("shop.test:*", ["http://shop.test:1", "https://shop.test"], ["http://shop.test.evil.test"]),
        ("*.shop.test", ["http://a.shop.test", "https://a.b.shop.test"], ["http://shop.test", "http://evilshop.test"]),
        ("[::1]:80", ["http://[::1]/"], ["http://[::1]:81/", "http://127.0.0.1/"]),
        ("::1", ["http://[::1]/"], ["http://[::2]/"]),
    ],
)
def test_entries(entry, allowed, refused):
    policy = AllowList.of([entry])
    assert [url for url in allowed if not policy.allows_url(url)] == []
    assert [url for url in refused if policy.allows_url(url)] == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "javascript:1", "chrome://gpu", "data:text/html,x", "ftp://a", ""]
)
def test_only_pages_of_the_web_may_be_opened(url):
    assert not AllowList.of(["*.test", "etc", "a"]).allows_url(url)
    assert AllowList.of([]).allows_url("about:blank")


@pytest.mark.parametrize("entry", ["http://shop.test", "shop.test/path", "*", "*:80", "", "shop.test:http", "a.*.test"])
def test_what_names_no_host_is_refused(entry):
    with pytest.raises(UserError, match="names no host"):
        AllowList.of([entry])


def test_the_site_of_an_address_is_its_port_alone():
    policy = AllowList.site_of("http://127.0.0.1:8000/a?b")
    assert policy.allows_url("http://127.0.0.1:8000/c")
    assert not policy.allows_url("http://127.0.0.1:8001/a")
    assert AllowList.site_of("https://[::1]/").entries == ("[::1]:443",)
    with pytest.raises(UserError, match="no address"):
        address("shop.test/x")
    with pytest.raises(UserError, match="no address"):
        address("http://shop.test:99999/")
