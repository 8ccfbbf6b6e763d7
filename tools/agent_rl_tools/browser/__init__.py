"""`browser_*`: pages of a real Chromium, seen as their accessibility tree and acted on by the ids of their elements.

One browser process serves all episodes of a run and is started again when it dies; each episode has a context of its
own that reaches only the hosts it is allowed. An action that a page does not take is told to the model; a page or a
browser that dies is a failure of the sandbox's, and the episode is tried again.

    browser = await share("browser", lambda: open_browser(BrowserConfig()))
    self.toolsets = (await browser.tools("http://shop.test/", allowed_hosts=("shop.test",)),)
"""

from agent_rl.errors import UserError

try:
    import playwright as playwright
except ImportError as error:
    raise UserError("Browser tools need Playwright: pip install 'agent-rl[browser]'.") from error

from agent_rl_tools.browser.config import BrowserConfig, PageConfig, ViewConfig
from agent_rl_tools.browser.policy import AllowList
from agent_rl_tools.browser.process import SharedBrowser, open_browser
from agent_rl_tools.browser.proxy import Route
from agent_rl_tools.browser.tools import BrowserTools
from agent_rl_tools.browser.view import Node, Observation, PageView, render

__all__ = [
    "AllowList",
    "BrowserConfig",
    "BrowserTools",
    "Node",
    "Observation",
    "PageConfig",
    "PageView",
    "Route",
    "SharedBrowser",
    "ViewConfig",
    "open_browser",
    "render",
]
