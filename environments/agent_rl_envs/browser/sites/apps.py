"""All apps, with their handlers."""

from __future__ import annotations

from agent_rl_envs.browser.sites.admin.pages import admin
from agent_rl_envs.browser.sites.calendar.pages import calendar
from agent_rl_envs.browser.sites.forms.pages import forms
from agent_rl_envs.browser.sites.forum.pages import forum
from agent_rl_envs.browser.sites.mail.pages import mail
from agent_rl_envs.browser.sites.shop.pages import shop

APPS = (shop, forum, mail, admin, forms, calendar)
