"""Shell tasks that are made up: templates with seeds, written as directories of Harbor."""
