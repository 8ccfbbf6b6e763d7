"""The back office's pages."""

from __future__ import annotations

from sqlalchemy import Select, select
from starlette.responses import Response

from agent_rl_envs.browser.sites.admin import population as choices
from agent_rl_envs.browser.sites.admin.records import Comment, Customer, Invoice, Staff, Ticket
from agent_rl_envs.browser.sites.visit import App, Refused, Visit

admin = App(
    "admin",
    "Back office",
    {"Customers": "/", "Invoices": "/invoices", "Tickets": "/tickets", "Staff": "/staff", "Account": "/account"},
)
SORTS = {"name": Customer.name, "country": Customer.country, "customer since": Customer.since}
TICKET_SORTS = {"oldest first": Ticket.opened.asc(), "newest first": Ticket.opened.desc()}


def _staff(visit: Visit, *roles: str) -> Staff:
    """Who is signed in. Raises `Refused` (403) when nobody is, or somebody with none of these roles."""
    who = visit.db.get(Staff, visit.session.get("staff", choices.SIGNED_IN))
    if who is None:
        raise Refused(403, "Please sign in on the page Account.")
    if roles and who.role not in roles:
        raise Refused(403, f"This takes another role; you are {who.role}.")
    return who


def _editor(visit: Visit) -> Staff:
    return _staff(visit, "manager", "administrator")


# --- account and staff ----------------------------------------------------------------------------------------------


@admin.get("/account")
def account(visit: Visit) -> Response:
    """Who is signed in, or the form to do so."""
    return visit.render("account", who=visit.db.get(Staff, visit.session.get("staff", choices.SIGNED_IN)))


@admin.post("/sign-out")
def sign_out(visit: Visit) -> Response:
    """Nobody is, then."""
    visit.session["staff"] = 0
    return visit.go("/account", "You are signed out.")


@admin.post("/account")
def sign_in(visit: Visit) -> Response:
    """By name and password."""
    name, password = visit.text("name"), visit.text("password")
    who = visit.db.scalars(select(Staff).where(Staff.name == name, Staff.password == password)).first()
    if who is None and not visit.errors:
        visit.errors["password"] = "Name and password do not belong together."
    if who is None:
        return visit.render("account", who=None)
    visit.session["staff"] = who.id
    return visit.go("/", f"You are signed in as {who.name} ({who.role}).")


@admin.get("/staff")
def staff_page(visit: Visit) -> Response:
    """Everybody and their roles."""
    who = _staff(visit)
    return visit.render("staff", staff=visit.all(select(Staff).order_by(Staff.name)), who=who, roles=choices.ROLES)


@admin.post("/staff/{id:int}")
def change_role(visit: Visit) -> Response:
    """For administrators."""
    _staff(visit, "administrator")
    member, role = visit.get(Staff), visit.one_of("role", choices.ROLES)
    if visit.errors:
        raise Refused(403, "There is no such role.")
    member.role = role
    return visit.go("/staff", f"{member.name} is {role} now.")


# --- customers ------------------------------------------------------------------------------------------------------


def _customers(visit: Visit) -> Select[Customer]:
    query = select(Customer)
    for name, column in (("country", Customer.country), ("plan", Customer.plan), ("status", Customer.status)):
        if value := visit.asked(name):
            query = query.where(column == value)
    if words := visit.asked("q"):
        query = query.where(Customer.name.icontains(words, autoescape=True))
    return query.order_by(SORTS.get(visit.asked("sort", "name"), Customer.name), Customer.id)


@admin.get("/")
def customers(visit: Visit) -> Response:
    """A table with filters."""
    return _show_customers(visit)


def _show_customers(visit: Visit) -> Response:
    _staff(visit)
    page = visit.page(_customers(visit), 15)
    export = page.address(1).replace("?", "/export?", 1)
    return visit.render("customers", page=page, choices=choices, sorts=list(SORTS), export=export)


@admin.post("/")
def change_several(visit: Visit) -> Response:
    """The plan or the status of all that are checked."""
    _editor(visit)
    plan, status = (
        visit.one_of("plan", choices.PLANS, required=False),
        visit.one_of("status", choices.STATUSES, required=False),
    )
    chosen = [visit.get(Customer, id) for id in visit.chosen("customer")]
    if not chosen or not (plan or status):
        visit.errors["bulk"] = "Please check some customers, and choose a plan or a status."
    if visit.errors:
        return _show_customers(visit)
    for customer in chosen:
        customer.plan, customer.status = plan or customer.plan, status or customer.status
    return visit.go("/", f"{len(chosen)} customers were changed.")


@admin.get("/export")
def export(visit: Visit) -> Response:
    """The filtered table as comma-separated values."""
    _staff(visit)
    rows = [(c.name, c.email, c.country, c.plan, c.status, c.since) for c in visit.all(_customers(visit))]
    return visit.render(
        "export", lines=[",".join(row) for row in [("name", "email", "country", "plan", "status", "since"), *rows]]
    )


@admin.get("/customer/{id:int}")
def customer_page(visit: Visit) -> Response:
    """With their invoices and tickets."""
    _staff(visit)
    return _show_customer(visit, visit.get(Customer))


def _show_customer(visit: Visit, customer: Customer) -> Response:
    invoices = visit.all(select(Invoice).where(Invoice.customer_id == customer.id).order_by(Invoice.day))
    tickets = visit.all(select(Ticket).where(Ticket.customer_id == customer.id).order_by(Ticket.opened))
    return visit.render("customer", customer=customer, invoices=invoices, tickets=tickets, choices=choices)


@admin.post("/customer/{id:int}")
def change_customer(visit: Visit) -> Response:
    """The whole form."""
    _editor(visit)
    customer = visit.get(Customer)
    email, country = visit.email("email"), visit.one_of("country", choices.COUNTRIES)
    plan, status = visit.one_of("plan", choices.PLANS), visit.one_of("status", choices.STATUSES)
    if visit.errors:
        return _show_customer(visit, customer)
    customer.email, customer.country, customer.plan, customer.status = email, country, plan, status
    return visit.go(f"/customer/{customer.id}", "The customer was saved.")


# --- invoices -------------------------------------------------------------------------------------------------------


@admin.get("/invoices")
def invoices(visit: Visit) -> Response:
    """A table that is edited in place."""
    _staff(visit)
    query, number = select(Invoice), visit.asked("number")
    if status := visit.asked("status"):
        query = query.where(Invoice.status == status)
    if number:
        query = query.where(Invoice.id == (int(number) if number.isdecimal() and len(number) < 9 else 0))
    page = visit.page(query.order_by(Invoice.id))
    names = {customer.id: customer.name for customer in visit.all(select(Customer))}
    return visit.render("invoices", page=page, names=names, choices=choices)


@admin.post("/invoice/{id:int}")
def change_invoice(visit: Visit) -> Response:
    """Its status."""
    _editor(visit)
    invoice, status = visit.get(Invoice), visit.one_of("status", choices.INVOICE_STATUSES)
    if visit.errors:
        raise Refused(403, "There is no such status.")
    invoice.status = status
    return visit.go("/invoices", f"Invoice {invoice.id} is {status} now.")


# --- tickets --------------------------------------------------------------------------------------------------------


@admin.get("/tickets")
def tickets(visit: Visit) -> Response:
    """A table with filters."""
    _staff(visit)
    query, people = select(Ticket), [who.name for who in visit.all(select(Staff).order_by(Staff.name))]
    for name, column in (("status", Ticket.status), ("priority", Ticket.priority), ("assignee", Ticket.assignee)):
        if value := visit.asked(name):
            query = query.where(column == value)
    sort = TICKET_SORTS.get(visit.asked("sort", "oldest first"), Ticket.opened.asc())
    page = visit.page(query.order_by(sort, Ticket.id))
    names = {customer.id: customer.name for customer in visit.all(select(Customer))}
    return visit.render("tickets", page=page, names=names, choices=choices, people=people, sorts=list(TICKET_SORTS))


@admin.get("/ticket/{id:int}")
def ticket_page(visit: Visit) -> Response:
    """One, with what was said."""
    _staff(visit)
    return _show_ticket(visit, visit.get(Ticket))


def _show_ticket(visit: Visit, ticket: Ticket) -> Response:
    comments = visit.all(select(Comment).where(Comment.ticket_id == ticket.id).order_by(Comment.id))
    people = [who.name for who in visit.all(select(Staff).order_by(Staff.name))]
    customer = visit.get(Customer, ticket.customer_id)
    return visit.render("ticket", ticket=ticket, comments=comments, people=people, customer=customer, choices=choices)


@admin.post("/ticket/{id:int}")
def change_ticket(visit: Visit) -> Response:
    """Its state, and a comment if there is one."""
    who, ticket = _editor(visit), visit.get(Ticket)
    people = [one.name for one in visit.all(select(Staff))]
    status, priority = visit.one_of("status", choices.TICKET_STATUSES), visit.one_of("priority", choices.PRIORITIES)
    assignee = visit.one_of("assignee", people, required=False)
    text = visit.text("comment", required=False, longest=1000)
    if visit.errors:
        return _show_ticket(visit, ticket)
    ticket.status, ticket.priority, ticket.assignee = status, priority, assignee
    if text:
        visit.db.add(Comment(ticket_id=ticket.id, author=who.name, text=text, at=visit.now))
    return visit.go(f"/ticket/{ticket.id}", "The ticket was saved.")
