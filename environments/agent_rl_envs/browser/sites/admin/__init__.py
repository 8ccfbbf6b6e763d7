"""The back office of a company: customers, orders and tickets in tables, staff with roles."""
