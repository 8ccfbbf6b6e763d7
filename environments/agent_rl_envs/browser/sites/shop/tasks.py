"""Tasks in the shop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent_rl_envs.browser.sites.checks import Change, added, changed, removed
from agent_rl_envs.browser.sites.formats import money
from agent_rl_envs.browser.sites.oracle import Stage, link, press
from agent_rl_envs.browser.sites.problems import Problem, Unsuitable, only, pick, template
from agent_rl_envs.browser.sites.shop.population import CATEGORIES, CITIES, REASONS, SHIPPING, STREETS, total
from agent_rl_envs.browser.sites.shop.records import Address, CartLine, Order, OrderLine, Product, Return
from agent_rl_envs.browser.sites.world import World


@template("shop")
def price_of_product(world: World, rng: np.random.Generator) -> Problem:
    """Read a price."""
    product = pick(rng, world.shop.products)
    text = f'What does the product "{product.name}" cost in the shop? Answer with the price alone.'
    return Problem(text, find(product)[:1], answer=money(product.cents))


@template("shop")
def cheapest_of_category(world: World, rng: np.random.Generator) -> Problem:
    """Filter and sort."""
    category = pick(rng, CATEGORIES)
    there = [product for product in world.shop.products if product.category == category]
    least = min(product.cents for product in there)
    product = only(product for product in there if product.cents == least)
    way = [press("Search", {"Category": category, "Sort by": "price, lowest first"})]
    text = f'Which product of the category "{category}" is the cheapest in the shop? Answer with its name alone.'
    return Problem(text, way, answer=product.name)


@template("shop")
def how_many_rated(world: World, rng: np.random.Generator) -> Problem:
    """Count with filters."""
    category, rating = pick(rng, CATEGORIES), pick(rng, ("3", "4"))
    there = [product for product in world.shop.products if product.category == category and product.stock]
    count = sum(product.rating >= float(rating) for product in there)
    if count < 2 or str(count) == rating:  # who repeats the question has not answered it
        raise Unsuitable
    way = [press("Search", {"Category": category, "Rating from": rating, "In stock only": True})]
    text = (
        f'How many products of the category "{category}" with a rating of at least {rating} are in stock in the shop? '
        "Answer with the number alone."
    )
    return Problem(text, way, answer=str(count))


@template("shop")
def best_rated(world: World, rng: np.random.Generator) -> Problem:
    """Several at once."""
    category = pick(rng, CATEGORIES)
    best = [product.name for product in world.shop.products if product.category == category and product.rating >= 4.5]
    if not 2 <= len(best) <= 5:
        raise Unsuitable
    text = (
        f'Which products of the category "{category}" have a rating of at least 4.5 in the shop? Answer with their '
        "names "
        "alone, separated by commas."
    )
    return Problem(text, [press("Search", {"Category": category, "Rating from": "4.5"})], answer=", ".join(best))


@template("shop")
def cost_of_order(world: World, rng: np.random.Generator) -> Problem:
    """Find an order by its day."""
    order = pick(rng, world.shop.orders)
    text = (
        f"What was the total of the order that I placed in the shop on {order.placed_at[:10]}? Answer with the amount."
    )
    return Problem(text, [link("Orders"), link(f"Order {order.id}")], answer=money(order.total_cents))


@template("shop")
def put_into_cart(world: World, rng: np.random.Generator) -> Problem:
    """Choose an option and a quantity."""
    product, quantity = _new(world, rng), int(rng.integers(2, 6))
    option = pick(rng, product.choices())
    line = CartLine(product_id=product.id, option=option, quantity=quantity)
    way = [*find(product), press("Add to cart", {"Option": option, "Quantity": str(quantity)})]
    text = (
        f'Put {quantity} of the product "{product.name}" in the option "{option}" into my cart. Do not order anything.'
    )
    return Problem(text, way, [added(line)])


@template("shop")
def change_cart(world: World, rng: np.random.Generator) -> Problem:
    """Another quantity."""
    line = pick(rng, world.shop.cart)
    name, quantity = _named(world, line), line.quantity + int(rng.integers(1, 8))
    way = [link("Cart"), press(f"Update {name}", {f"Quantity of {name}": str(quantity)})]
    text = f'Change the quantity of "{_product(world, line).name}" in my shopping cart to {quantity}.'
    return Problem(text, way, [changed(line, quantity=quantity)])


@template("shop")
def take_from_cart(world: World, rng: np.random.Generator) -> Problem:
    """Remove a line."""
    line = pick(rng, world.shop.cart)
    way = [link("Cart"), press(f"Remove {_named(world, line)}")]
    return Problem(f'Remove "{_product(world, line).name}" from my shopping cart.', way, [removed(line)])


@template("shop")
def order_cart(world: World, rng: np.random.Generator) -> Problem:
    """Check out what is in the cart."""
    address, shipping = pick(rng, world.shop.addresses), pick(rng, SHIPPING)
    way = [link("Cart"), *_check_out(address, shipping, "")]
    text = f'Order what is in my shopping cart, with {shipping} shipping to my address "{address.label}".'
    return Problem(text, way, ordered(world, [], address, shipping, "", ""))


@template("shop")
def buy_with_coupon(world: World, rng: np.random.Generator) -> Problem:
    """Everything from the search to the order."""
    product, address = _new(world, rng), pick(rng, world.shop.addresses)
    option, shipping, coupon = pick(rng, product.choices()), pick(rng, SHIPPING), pick(rng, world.shop.coupons)
    goods = product.cents + sum(line.quantity * _product(world, line).cents for line in world.shop.cart)
    if goods < coupon.least_cents:
        raise Unsuitable
    note = pick(rng, ("Ring twice", "Leave at the door", "Call before delivery"))
    more = CartLine(product_id=product.id, option=option, quantity=1)
    way = [
        *find(product),
        press("Add to cart", {"Option": option}),
        press("Apply code", {"Coupon code": coupon.code}),
        *_check_out(address, shipping, note),
    ]
    text = (
        f'Add one "{product.name}" in the option "{option}" to my shopping cart and order everything that is in it '
        "then, "
        f'with the coupon "{coupon.code}", {shipping} shipping to my address "{address.label}" and the note "{note}".'
    )
    return Problem(text, way, ordered(world, [more], address, shipping, coupon.code, note))


@template("shop")
def cancel_order(world: World, rng: np.random.Generator) -> Problem:
    """Behind a question."""
    order = pick(rng, [order for order in world.shop.orders if order.status == "processing"])
    way = [link("Orders"), link(f"Order {order.id}"), press("Cancel order"), press("Yes")]
    text = f"Cancel the order that I placed in the shop on {order.placed_at[:10]}."
    return Problem(text, way, [changed(order, status="cancelled")])


@template("shop")
def return_product(world: World, rng: np.random.Generator) -> Problem:
    """One product of a delivered order."""
    delivered = {order.id: order for order in world.shop.orders if order.status == "delivered"}
    line = pick(rng, [line for line in world.shop.lines if line.order_id in delivered])
    name, reason = _product(world, line).name, pick(rng, REASONS)
    comment = pick(rng, ("Please send a new one", "I would like my money back", "The box was open"))
    way = [
        link("Orders"),
        link(f"Order {line.order_id}"),
        link(f"Return {name}"),
        press("Send return", {"Reason": reason, "Comment": comment}),
    ]
    text = (
        f'Return the "{name}" that I ordered in the shop on {delivered[line.order_id].placed_at[:10]}. The reason is '
        f'"{reason}", the comment "{comment}".'
    )
    return Problem(text, way, [added(Return(order_line_id=line.id, reason=reason, comment=comment))])


@template("shop")
def add_address(world: World, rng: np.random.Generator) -> Problem:
    """Fill in a form."""
    label, street = pick(rng, ("Holiday", "Office", "Sister", "Neighbour")), pick(rng, STREETS)
    street, postcode = f"{int(rng.integers(90, 200))} {street}", str(int(rng.integers(10000, 99999)))
    recipient, city = pick(rng, world.people).name, pick(rng, CITIES)
    address = Address(label=label, recipient=recipient, street=street, postcode=postcode, city=city)
    fields = {"Label": label, "Recipient": recipient, "Street": street, "Postcode": postcode, "City": city}
    text = f'Add the address "{label}" to my account in the shop: {recipient}, {street}, {postcode} {city}.'
    return Problem(text, [link("Addresses"), press("Add address", fields)], [added(address)])


# --- parts ----------------------------------------------------------------------------------------------------------


def find(product: Product) -> list[Stage]:
    """From the catalogue to the page of a product."""
    return [press("Search", {"Search products": product.name}), link(product.name)]


def ordered(
    world: World, more: Sequence[CartLine], address: Address, shipping: str, code: str, note: str
) -> list[Change]:
    """The changes of an order of what is in the cart, and more."""
    shop = world.shop
    lines, id = [*shop.cart, *more], 1 + max(order.id for order in shop.orders)
    percent = next((coupon.percent for coupon in shop.coupons if coupon.code == code), 0)
    cost = total([(line.quantity, _product(world, line).cents) for line in lines], percent, shipping)
    order = Order(
        placed_at=world.profile.now,
        status="processing",
        address_id=address.id,
        shipping=shipping,
        coupon=code,
        note=note,
        total_cents=cost,
    )
    bought = [
        OrderLine(
            order_id=id,
            product_id=line.product_id,
            option=line.option,
            quantity=line.quantity,
            cents=_product(world, line).cents,
        )
        for line in lines
    ]
    return [added(order), *map(added, bought), *map(removed, shop.cart)]


def _check_out(address: Address, shipping: str, note: str) -> list[Stage]:
    fields: dict[str, str | bool] = {"Ship to": address.label, shipping: True}
    if note:
        fields["Note for the courier"] = note
    return [link("Go to checkout"), press("Place order", {**fields, "I accept the terms of sale": True})]


def _new(world: World, rng: np.random.Generator) -> Product:
    """A product with options that is not in the cart."""
    taken = {line.product_id for line in world.shop.cart}
    return pick(rng, [p for p in world.shop.products if p.stock and p.options and p.id not in taken])


def _product(world: World, line: CartLine | OrderLine) -> Product:
    return next(product for product in world.shop.products if product.id == line.product_id)


def _named(world: World, line: CartLine) -> str:
    return f"{_product(world, line).name} {line.option}".strip()
