"""Six small web apps (shop, forum, mail, admin, forms, calendar) with a database per episode, and tasks on them."""
