"""The shop's pages."""

from __future__ import annotations

import re

from sqlalchemy import delete, select
from starlette.responses import Response

from agent_rl_envs.browser.sites.shop.population import CATEGORIES, REASONS, SHIPPING, total
from agent_rl_envs.browser.sites.shop.records import Address, CartLine, Coupon, Order, OrderLine, Product, Return
from agent_rl_envs.browser.sites.visit import App, Refused, Visit

shop = App("shop", "Shop", {"Catalogue": "/", "Cart": "/cart", "Orders": "/orders", "Addresses": "/addresses"})
SORTS = {
    "name": Product.name.asc(),
    "price, lowest first": Product.cents.asc(),
    "price, highest first": Product.cents.desc(),
    "rating, best first": Product.rating.desc(),
}
RATINGS = ("", "3", "4", "4.5")
MOST = 20  # of one product


# --- catalogue ------------------------------------------------------------------------------------------------------


@shop.get("/")
def catalogue(visit: Visit) -> Response:
    """Products, filtered and sorted."""
    query, words, category = select(Product), visit.asked("q"), visit.asked("category")
    for word in words.split():
        query = query.where(Product.name.icontains(word, autoescape=True))
    if category:
        query = query.where(Product.category == category)
    if (rating := visit.asked("rating")) in RATINGS[1:]:
        query = query.where(Product.rating >= float(rating))
    if visit.asked("stock"):
        query = query.where(Product.stock > 0)
    sort = visit.asked("sort", "name")
    page = visit.page(query.order_by(SORTS.get(sort, SORTS["name"]), Product.id))
    return visit.render("catalogue", page=page, words=words, categories=list(CATEGORIES), sorts=list(SORTS))


@shop.get("/suggest")
def suggest(visit: Visit) -> Response:
    """Names that what is typed may become."""
    return visit.suggestions(Product.name)


@shop.get("/product/{id:int}")
def product_page(visit: Visit) -> Response:
    """One product."""
    return visit.render("product", product=visit.get(Product), most=MOST)


@shop.post("/product/{id:int}")
def add_to_cart(visit: Visit) -> Response:
    """More of what is in the cart already is the same line."""
    product = visit.get(Product)
    option = visit.one_of("option", product.choices()) if product.options else ""
    quantity = visit.whole("quantity", 1, MOST)
    if not product.stock:
        visit.errors["quantity"] = "This product is sold out."
    if visit.errors:
        return visit.render("product", product=product, most=MOST)
    same = select(CartLine).where(CartLine.product_id == product.id, CartLine.option == option)
    if line := visit.db.scalars(same).first():
        line.quantity = min(MOST, line.quantity + quantity)
    else:
        visit.db.add(CartLine(product_id=product.id, option=option, quantity=quantity))
    return visit.go("/cart", f"{product.name} is in your cart.")


# --- cart and checkout ----------------------------------------------------------------------------------------------


def _cart(visit: Visit) -> list[tuple[CartLine, Product]]:
    lines = visit.all(select(CartLine).order_by(CartLine.id))
    return [(line, visit.get(Product, line.product_id)) for line in lines]


def _coupon(visit: Visit) -> Coupon | None:
    return visit.db.scalars(select(Coupon).where(Coupon.code == visit.session.get("coupon", ""))).first()


def _costs(visit: Visit, shipping: str) -> dict[str, int]:
    coupon, lines = _coupon(visit), [(line.quantity, product.cents) for line, product in _cart(visit)]
    goods = sum(quantity * cents for quantity, cents in lines)
    percent = coupon.percent if coupon and goods >= coupon.least_cents else 0
    return {"goods": goods, "percent": percent, "all": total(lines, percent, shipping)}


def _show_cart(visit: Visit) -> Response:
    return visit.render("cart", lines=_cart(visit), coupon=_coupon(visit), costs=_costs(visit, "standard"))


@shop.get("/cart")
def cart(visit: Visit) -> Response:
    """What is in it."""
    return _show_cart(visit)


@shop.post("/cart/{id:int}/update")
def change_quantity(visit: Visit) -> Response:
    """Of one line."""
    line, quantity = visit.get(CartLine), visit.whole("quantity", 1, MOST)
    if visit.errors:
        return _show_cart(visit)
    line.quantity = quantity
    return visit.go("/cart", "The quantity was changed.")


@shop.post("/cart/{id:int}/remove")
def remove_line(visit: Visit) -> Response:
    """One line."""
    visit.db.delete(visit.get(CartLine))
    return visit.go("/cart", "It was removed from your cart.")


@shop.post("/cart/coupon")
def use_coupon(visit: Visit) -> Response:
    """For the next order."""
    coupon = visit.db.scalars(select(Coupon).where(Coupon.code == visit.text("code").upper())).first()
    if coupon is None:
        visit.errors["code"] = "There is no such code."
    elif _costs(visit, "standard")["goods"] < coupon.least_cents:
        visit.errors["code"] = "Your cart is too small for this code."
    else:
        visit.session["coupon"] = coupon.code
        return visit.go("/cart", f"The code {coupon.code} takes {coupon.percent} % off.")
    return _show_cart(visit)


def _show_checkout(visit: Visit) -> Response:
    addresses = visit.all(select(Address).order_by(Address.id))
    return visit.render("checkout", lines=_cart(visit), addresses=addresses, shipping=SHIPPING, coupon=_coupon(visit))


@shop.get("/checkout")
def checkout(visit: Visit) -> Response:
    """Where to, and how."""
    return _show_checkout(visit) if _cart(visit) else visit.go("/cart", "Your cart is empty.")


@shop.post("/checkout")
def place_order(visit: Visit) -> Response:
    """What is in the cart becomes an order."""
    lines, coupon = _cart(visit), _coupon(visit)
    if not lines:
        return visit.go("/cart", "Your cart is empty.")
    labels = {address.label: address.id for address in visit.all(select(Address))}
    label, shipping = visit.one_of("address", list(labels)), visit.one_of("shipping", list(SHIPPING))
    note = visit.text("note", required=False)
    if not visit.sent("terms"):
        visit.errors["terms"] = "Please accept the terms of sale."
    if visit.errors:
        return _show_checkout(visit)
    order = Order(
        placed_at=visit.now,
        status="processing",
        address_id=labels[label],
        shipping=shipping,
        note=note,
        coupon=coupon.code if coupon else "",
        total_cents=_costs(visit, shipping)["all"],
    )
    visit.db.add(order)
    visit.db.flush()
    for line, product in lines:
        visit.db.add(
            OrderLine(
                order_id=order.id,
                product_id=product.id,
                option=line.option,
                quantity=line.quantity,
                cents=product.cents,
            )
        )
    visit.db.execute(delete(CartLine))
    visit.session.pop("coupon", None)
    return visit.go(f"/orders/{order.id}", f"Thank you. Your order has the number {order.id}.")


# --- orders ---------------------------------------------------------------------------------------------------------


@shop.get("/orders")
def orders(visit: Visit) -> Response:
    """The latest first."""
    return visit.render("orders", page=visit.page(select(Order).order_by(Order.placed_at.desc())))


@shop.get("/orders/{id:int}")
def order_page(visit: Visit) -> Response:
    """One order."""
    return _show_order(visit, visit.get(Order))


def _show_order(visit: Visit, order: Order) -> Response:
    lines = visit.all(select(OrderLine).where(OrderLine.order_id == order.id).order_by(OrderLine.id))
    returned = {one.order_line_id for one in visit.all(select(Return))}
    items = [(line, visit.get(Product, line.product_id), line.id in returned) for line in lines]
    return visit.render("order", order=order, items=items, address=visit.db.get(Address, order.address_id))


@shop.post("/orders/{id:int}/cancel")
def cancel(visit: Visit) -> Response:
    """As long as it was not sent."""
    order = visit.get(Order)
    if order.status != "processing":
        raise Refused(403, "Only orders that are being processed can be cancelled.")
    order.status = "cancelled"
    return visit.go(f"/orders/{order.id}", "The order was cancelled.")


def _returnable(visit: Visit) -> tuple[OrderLine, Order, Product]:
    line = visit.get(OrderLine)
    order = visit.get(Order, line.order_id)
    there = select(Return).where(Return.order_line_id == line.id)
    if order.status != "delivered" or visit.count(there):
        raise Refused(403, "This cannot be returned: it was not delivered, or is on its way back.")
    return line, order, visit.get(Product, line.product_id)


@shop.get("/return/{id:int}")
def return_form(visit: Visit) -> Response:
    """Why."""
    _, order, product = _returnable(visit)
    return visit.render("return", order=order, product=product, reasons=REASONS)


@shop.post("/return/{id:int}")
def return_line(visit: Visit) -> Response:
    """Send it back."""
    line, order, product = _returnable(visit)
    reason, comment = visit.one_of("reason", REASONS), visit.text("comment", required=False)
    if visit.errors:
        return visit.render("return", order=order, product=product, reasons=REASONS)
    visit.db.add(Return(order_line_id=line.id, reason=reason, comment=comment))
    return visit.go(f"/orders/{order.id}", f"Your return of {product.name} is registered.")


# --- addresses ------------------------------------------------------------------------------------------------------


def _show_addresses(visit: Visit) -> Response:
    return visit.render("addresses", addresses=visit.all(select(Address).order_by(Address.id)))


@shop.get("/addresses")
def addresses(visit: Visit) -> Response:
    """All, and a form for one more."""
    return _show_addresses(visit)


@shop.post("/addresses")
def add_address(visit: Visit) -> Response:
    """With a label of its own."""
    address = Address(
        label=visit.text("label", longest=40),
        recipient=visit.text("recipient"),
        street=visit.text("street"),
        postcode=visit.text("postcode"),
        city=visit.text("city"),
    )
    if "postcode" not in visit.errors and not re.fullmatch(r"\d{5}", address.postcode, re.ASCII):
        visit.errors["postcode"] = "Please enter the five digits of the postcode."
    if visit.count(select(Address).where(Address.label == address.label)):
        visit.errors["label"] = "There is an address with this label."
    if visit.errors:
        return _show_addresses(visit)
    visit.db.add(address)
    return visit.go("/addresses", f"The address {address.label} was added.")
