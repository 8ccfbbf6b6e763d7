"""The templates of all apps: importing their modules registers them."""

from __future__ import annotations

from agent_rl_envs.browser.sites.admin import tasks as _admin
from agent_rl_envs.browser.sites.calendar import tasks as _calendar
from agent_rl_envs.browser.sites.cross import tasks as _cross
from agent_rl_envs.browser.sites.forms import tasks as _forms
from agent_rl_envs.browser.sites.forum import tasks as _forum
from agent_rl_envs.browser.sites.mail import tasks as _mail
from agent_rl_envs.browser.sites.problems import REGISTERED
from agent_rl_envs.browser.sites.shop import tasks as _shop

TASKS = (_shop, _forum, _mail, _admin, _forms, _calendar, _cross)
TEMPLATES = {
    name: found for module in TASKS for name, found in REGISTERED.items() if found[1].__module__ == module.__name__
}
"""By name: the app, and what makes a problem; in the order of the apps."""
