"""The shop: catalogue, cart, checkout, orders, returns."""
