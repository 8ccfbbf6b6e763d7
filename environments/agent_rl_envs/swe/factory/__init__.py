"""Makes tasks of packages that have tests: plants bugs, keeps those that tests notice, and says what is wrong."""
