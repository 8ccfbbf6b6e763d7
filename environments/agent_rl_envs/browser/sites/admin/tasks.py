"""Tasks in the back office."""

from __future__ import annotations

import numpy as np

from agent_rl_envs.browser.sites.admin import population as choices
from agent_rl_envs.browser.sites.admin.records import Comment, Customer, Ticket
from agent_rl_envs.browser.sites.checks import added, changed
from agent_rl_envs.browser.sites.formats import money
from agent_rl_envs.browser.sites.oracle import Stage, link, press
from agent_rl_envs.browser.sites.problems import Problem, Unsuitable, pick, template
from agent_rl_envs.browser.sites.world import World

TEXTS = (
    "Please restart the app",
    "Fixed in the last release",
    "A colleague will call you",
    "We have sent a new invoice",
)


@template("admin")
def email_of_customer(world: World, rng: np.random.Generator) -> Problem:
    """Look one up."""
    customer = pick(rng, world.admin.customers)
    text = f"What is the e-mail address of the customer {customer.name} in the back office? Answer with it alone."
    return Problem(text, [press("Filter", {"Name contains": customer.name})], answer=customer.email)


@template("admin")
def how_many_customers(world: World, rng: np.random.Generator) -> Problem:
    """Two filters."""
    country, plan = pick(rng, choices.COUNTRIES), pick(rng, choices.PLANS)
    count = sum((customer.country, customer.plan) == (country, plan) for customer in world.admin.customers)
    if count < 2:
        raise Unsuitable
    text = f'How many customers in {country} are on the plan "{plan}" in the back office? Answer with the number alone.'
    return Problem(text, [press("Filter", {"Country": country, "Plan": plan})], answer=str(count))


@template("admin")
def owed_by_customer(world: World, rng: np.random.Generator) -> Problem:
    """Add up."""
    customer = pick(rng, world.admin.customers)
    due = [i.cents for i in world.admin.invoices if i.customer_id == customer.id and i.status in ("open", "overdue")]
    if len(due) < 2:
        raise Unsuitable
    text = (
        f"How much does the customer {customer.name} owe in the back office: the sum of the invoices that are open or "
        "overdue? Answer with the amount alone."
    )
    return Problem(text, find(customer), answer=money(sum(due)))


@template("admin")
def oldest_ticket(world: World, rng: np.random.Generator) -> Problem:
    """Filters and a sort."""
    status, priority = pick(rng, choices.TICKET_STATUSES), pick(rng, choices.PRIORITIES)
    found = [ticket for ticket in world.admin.tickets if (ticket.status, ticket.priority) == (status, priority)]
    if len(found) < 2:
        raise Unsuitable
    ticket = min(found, key=lambda ticket: ticket.opened)
    customer = _customer(world, ticket)
    way = [link("Tickets"), press("Filter", {"Status": status, "Priority": priority})]
    text = (
        f'Which customer opened the oldest ticket with the status "{status}" and the priority "{priority}" in the back '
        "office? Answer with the name alone."
    )
    return Problem(text, way, answer=customer.name)


@template("admin")
def change_plan(world: World, rng: np.random.Generator) -> Problem:
    """One customer's."""
    customer = pick(rng, world.admin.customers)
    plan = pick(rng, [plan for plan in choices.PLANS if plan != customer.plan])
    way = [*find(customer), press("Save customer", {"Plan": plan})]
    return Problem(f'Set the plan of the customer {customer.name} to "{plan}".', way, [changed(customer, plan=plan)])


@template("admin")
def move_customer(world: World, rng: np.random.Generator) -> Problem:
    """Two fields."""
    customer = pick(rng, world.admin.customers)
    country = pick(rng, [country for country in choices.COUNTRIES if country != customer.country])
    first, _, last = customer.name.lower().partition(" ")
    email = f"{last}.{first}@{country.lower()}.example.com"
    way = [*find(customer), press("Save customer", {"E-mail": email, "Country": country})]
    text = f"The customer {customer.name} has moved: set the country to {country} and the e-mail address to {email}."
    return Problem(text, way, [changed(customer, country=country, email=email)])


@template("admin")
def change_statuses(world: World, rng: np.random.Generator) -> Problem:
    """All that two filters leave."""
    country, plan = pick(rng, choices.COUNTRIES), pick(rng, choices.PLANS)
    found = [customer for customer in world.admin.customers if (customer.country, customer.plan) == (country, plan)]
    status = pick(rng, choices.STATUSES)
    others = [customer for customer in found if customer.status != status]
    if len(others) < 2:
        raise Unsuitable
    boxes: dict[str, str | bool] = {f"Select {customer.name}": True for customer in found}
    way = [
        press("Filter", {"Country": country, "Plan": plan}),
        press("Change checked", {**boxes, "set status to": status}),
    ]
    text = f'Set the status of all customers in {country} with the plan "{plan}" to "{status}" in the back office.'
    return Problem(text, way, [changed(customer, status=status) for customer in others])


@template("admin")
def settle_invoice(world: World, rng: np.random.Generator) -> Problem:
    """In its row."""
    invoice = pick(rng, world.admin.invoices)
    status = pick(rng, [status for status in choices.INVOICE_STATUSES if status != invoice.status])
    way = [
        link("Invoices"),
        press("Filter", {"Number": str(invoice.id)}),
        press(f"Save invoice {invoice.id}", {f"Status of invoice {invoice.id}": status}),
    ]
    text = f'Set the status of the invoice {invoice.id} to "{status}" in the back office.'
    return Problem(text, way, [changed(invoice, status=status)])


@template("admin")
def assign_ticket(world: World, rng: np.random.Generator) -> Problem:
    """To somebody of the staff, with a priority."""
    ticket = pick(rng, world.admin.tickets)
    who = pick(rng, [who for who in world.admin.staff if who.name != ticket.assignee])
    priority = pick(rng, [priority for priority in choices.PRIORITIES if priority != ticket.priority])
    way = [*_open(world, ticket), press("Save ticket", {"Priority": priority, "Assignee": who.name})]
    text = (
        f"Assign the ticket {ticket.id} of {_customer(world, ticket).name} to {who.name} and set its priority to "
        f'"{priority}".'
    )
    return Problem(text, way, [changed(ticket, assignee=who.name, priority=priority)])


@template("admin")
def close_ticket(world: World, rng: np.random.Generator) -> Problem:
    """With a comment."""
    ticket = pick(rng, [ticket for ticket in world.admin.tickets if ticket.status != "closed"])
    comment, author = pick(rng, TEXTS), world.admin.staff[choices.SIGNED_IN - 1].name
    said = Comment(ticket_id=ticket.id, author=author, text=comment, at=world.profile.now)
    way = [*_open(world, ticket), press("Save ticket", {"Status": "closed", "Comment": comment})]
    text = f'Close the ticket {ticket.id} of {_customer(world, ticket).name} with the comment "{comment}".'
    return Problem(text, way, [changed(ticket, status="closed"), added(said)])


@template("admin")
def change_role(world: World, rng: np.random.Generator) -> Problem:
    """As somebody else."""
    boss = next(who for who in world.admin.staff if who.role == "administrator")
    who = pick(rng, [who for who in world.admin.staff if who is not boss])
    role = pick(rng, [role for role in choices.ROLES if role != who.role])
    way = [
        link("Account"),
        press("Sign out"),
        press("Sign in", {"Name": boss.name, "Password": boss.password}),
        link("Staff"),
        press(f"Save role of {who.name}", {f"Role of {who.name}": role}),
    ]
    text = (
        f'Sign in to the back office as {boss.name} with the password "{boss.password}" and change the role of '
        f"{who.name} "
        f'to "{role}".'
    )
    return Problem(text, way, [changed(who, role=role)])


# --- parts ----------------------------------------------------------------------------------------------------------


def find(customer: Customer) -> list[Stage]:
    """By name."""
    return [press("Filter", {"Name contains": customer.name}), link(customer.name)]


def _open(world: World, ticket: Ticket) -> list[Stage]:
    return [*find(_customer(world, ticket)), link(f"Ticket {ticket.id}")]


def _customer(world: World, ticket: Ticket) -> Customer:
    return next(customer for customer in world.admin.customers if customer.id == ticket.customer_id)
