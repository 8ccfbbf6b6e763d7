"""Forms of several pages: registration, application, survey, repairs; and what was sent with them."""
