"""Programs that run inside sandboxes, each by itself and handed over as text: the standard library, and pytest in one.

`perform` applies an attempt to a clean repository and starts a driver; `with_pytest` and `with_unittest` are drivers,
in whose process the repository's code runs; `collect` finds what an agent changed. Drivers must do with Python 3.7.
"""
