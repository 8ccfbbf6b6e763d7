"""Six small web apps (shop, forum, mail, admin, forms, calendar) with a database per episode, and tasks on them."""

EPISODE_HEADER = "x-agent-rl-episode"
"""Says which database a request is for; the episode's proxy adds it."""

SECRET_HEADER = "x-agent-rl-secret"  # the header's name
"""Shows that whoever asks about databases has started the server."""
