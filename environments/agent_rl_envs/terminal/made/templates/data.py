"""Tasks about data: logs, records, databases and schedules."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence

from agent_rl_envs.terminal.made.draft import HOME, Check, Dice, Draft, same_text, same_value, untouched


def _table(path: str, rows: Sequence[Sequence[object]]) -> Check:
    written = [[str(cell) for cell in row] for row in rows]
    return {"kind": "table", "name": f"{path} is right", "path": f"{HOME}/{path}", "rows": written}


def _csv(rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def log_analysis(dice: Dice) -> Draft:
    """Who had the most errors, by an access log."""
    clients = [
        f"10.{dice.number(0, 255)}.{dice.number(0, 255)}.{dice.number(1, 254)}" for _ in range(dice.number(8, 14))
    ]
    paths = [f"/{a}/{b}" for a, b in zip(dice.words(6), dice.words(6), strict=True)]
    lines: list[str] = []
    errors: Counter[str] = Counter()
    kind = dice.one(4, 5)
    hits = dict(zip(clients, dice.some(range(1, 40), len(clients)), strict=True))  # no two as many
    for client, count in hits.items():
        statuses = [kind * 100 + dice.number(0, 9) for _ in range(count)]
        statuses += [dice.one(200, 204, 301, 304, (9 - kind) * 100 + 3) for _ in range(dice.number(0, 30))]
        for status in statuses:
            moment = f"{dice.number(1, 28):02}/Mar/2025:{dice.number(0, 23):02}:{dice.number(0, 59):02}:00 +0000"
            method, size = dice.one("GET", "POST"), dice.number(10, 9000)
            lines.append(f'{client} - - [{moment}] "{method} {dice.one(*paths)} HTTP/1.1" {status} {size}')
        errors[client] = count
    lines = dice.some(lines, len(lines))
    top = dice.number(3, 6)
    files = {"access.log": "\n".join(lines) + "\n"}
    wanted = "".join(f"{count} {client}\n" for client, count in errors.most_common(top))
    return Draft(
        f"{HOME}/access.log is a web server's log: each line has the client's address first, and the status of the "
        f"answer after the quoted request. Find the {top} clients with the most answers whose status is {kind}00 to "
        f"{kind}99. Write them to {HOME}/top.txt, most first, each on a line as `NUMBER ADDRESS`, with one blank.",
        [same_text("top.txt", wanted), *untouched(files)],
        f"""awk '{{ split($0, parts, "\\""); split(parts[3], rest, " "); if (int(rest[1] / 100) == {kind}) n[$1]++ }}
END {{ for (c in n) print n[c], c }}' access.log | sort -rn | head -{top} > top.txt
""",
        files,
    )


def records_to_json(dice: Dice) -> Draft:
    """Text of records to JSON."""
    fields = dice.words(dice.number(3, 5))
    number, flag = fields[0], fields[1]
    mark = dice.one(":", "=", "->")
    records: list[dict[str, object]] = []
    for _ in range(dice.number(8, 20)):
        record: dict[str, object] = {number: dice.number(-500, 5000), flag: dice.one(True, False)}
        record |= {name: " ".join(dice.words(dice.number(1, 3))) for name in fields[2:]}
        chosen = dice.some(list(record), dice.number(2, len(record)))
        records.append({name: record[name] for name in chosen})
    text = ""
    for record in records:
        for name, value in record.items():
            written = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
            text += f"{name}{dice.one('', ' ')}{mark}{dice.one(' ', '   ')}{written}\n"
            if dice.number(1, 6) == 1:
                text += f"# {dice.words(1)[0]} {mark} {dice.words(1)[0]}\n"
        text += "\n" * dice.number(1, 3)
    files = {"records.txt": text}
    numbers = [record.get(number) for record in records]
    total = sum(value for value in numbers if isinstance(value, int))
    return Draft(
        f"{HOME}/records.txt has records, with empty lines between them. A record has lines `NAME {mark} VALUE`, with "
        f"or without blanks around `{mark}`; lines that begin with # are comments. Write {HOME}/records.json: an "
        f"object with `records`, a list of objects in the same order with the fields that each record has, and "
        f"`total`, the sum of all `{number}`. Values of `{number}` are numbers, those of `{flag}` are true for yes and "
        "false for no, all others are strings without blanks at their ends.",
        [same_value("records.json", {"records": records, "total": total}), *untouched(files)],
        f"""python3 - <<'PYTHON'
import json
from pathlib import Path
records = []
for block in Path("records.txt").read_text().split("\\n\\n"):
    record = {{}}
    for line in block.splitlines():
        if line.strip() and not line.startswith("#"):
            name, value = (part.strip() for part in line.split("{mark}", 1))
            record[name] = int(value) if name == "{number}" else value == "yes" if name == "{flag}" else value
    if record:
        records.append(record)
total = sum(record.get("{number}", 0) for record in records)
Path("records.json").write_text(json.dumps({{"records": records, "total": total}}))
PYTHON
""",
        files,
    )


def database_to_csv(dice: Dice) -> Draft:
    """A question to a SQLite database."""
    items, shops = dice.words(dice.number(4, 8)), dice.words(dice.number(3, 5))
    prices = {item: dice.number(1, 90) for item in items}
    sales = [(dice.one(*shops), dice.one(*items), dice.number(1, 12)) for _ in range(dice.number(30, 80))]
    least = dice.number(2, 5)
    earned: Counter[str] = Counter()
    sold: Counter[str] = Counter()
    for shop, item, amount in sales:
        if amount >= least:
            earned[shop] += amount * prices[item]
            sold[shop] += amount
    rows = [["shop", "amount", "revenue"], *([shop, sold[shop], earned[shop]] for shop in sorted(earned))]
    setup = f"""python3 - <<'PYTHON'
import sqlite3
connection = sqlite3.connect("sales.db")
connection.execute("create table items (id integer primary key, name text, price integer)")
connection.execute("create table sales (shop text, item integer references items, amount integer)")
prices = {prices!r}
ids = {{name: index for index, name in enumerate(prices, 1)}}
connection.executemany("insert into items values (?, ?, ?)", [(ids[name], name, prices[name]) for name in prices])
sales = {sales!r}
connection.executemany("insert into sales values (?, ?, ?)", [(s, ids[i], a) for s, i, a in sales])
connection.commit()
PYTHON
"""
    return Draft(
        f"{HOME}/sales.db is a SQLite database with the tables items (id, name, price) and sales (shop, item, amount), "
        f"where item is an id. For each shop, look at its sales of at least {least} pieces (amount). Write "
        f"{HOME}/shops.csv with the header shop,amount,revenue and a row for each shop that has such sales, sorted by "
        "name: the pieces sold in them together, and amount times price together. If the program sqlite3 is not here, "
        "Python's module of that name is.",
        [_table("shops.csv", rows)],
        f"""python3 - <<'PYTHON'
import csv, sqlite3
query = '''select shop, sum(amount), sum(amount * price) from sales join items on items.id = sales.item
where amount >= {least} group by shop order by shop'''
with open("shops.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["shop", "amount", "revenue"])
    writer.writerows(sqlite3.connect("sales.db").execute(query))
PYTHON
""",
        setup=setup,
    )


def join_tables(dice: Dice) -> Draft:
    """Two CSV files and who is in only one of them."""
    names = dice.words(dice.number(14, 26))
    staff = {name: dice.number(100, 999) for name in names[: -dice.number(2, 5)]}
    hours = {name: dice.number(1, 60) for name in names[dice.number(2, 5) :]}
    separator = dice.one(";", "\t", "|")
    called = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}[separator]
    files = {
        "staff.csv": _csv([("name", "room"), *((name, staff[name]) for name in dice.some(list(staff), len(staff)))]),
        "hours.txt": "".join(
            f"{hours[name]}{separator}{name.upper()}\n" for name in dice.some(list(hours), len(hours))
        ),
    }
    rows = [["name", "room", "hours"], *([name, staff[name], hours[name]] for name in sorted(staff) if name in hours)]
    alone = sorted((staff.keys() | hours.keys()) - (staff.keys() & hours.keys()))
    return Draft(
        f"{HOME}/staff.csv says who sits where. {HOME}/hours.txt has lines of hours and a name in capital letters, "
        f"with {called} between and without a header. Write {HOME}/joined.csv (commas, header name,room,hours) with "
        f"those who are in both, names in small letters, sorted by name, and {HOME}/alone.txt with the names, in small "
        "letters and one on a line, of those who are in only one of them, sorted.",
        [_table("joined.csv", rows), same_text("alone.txt", "\n".join(alone)), *untouched(files)],
        f"""python3 - <<'PYTHON'
import csv
staff = {{row["name"]: row["room"] for row in csv.DictReader(open("staff.csv"))}}
hours = {{name.lower(): h for h, name in (line.rstrip("\\n").split({separator!r}) for line in open("hours.txt"))}}
with open("joined.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["name", "room", "hours"])
    writer.writerows([name, staff[name], hours[name]] for name in sorted(staff) if name in hours)
with open("alone.txt", "w") as file:
    file.writelines(name + "\\n" for name in sorted(staff.keys() ^ hours.keys()))
PYTHON
""",
        files,
    )


_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def schedule(dice: Dice) -> Draft:
    """Words to a crontab."""
    entries: list[tuple[str, str]] = []
    said: list[str] = []
    for name in dice.words(dice.number(3, 6)):
        minute, hour, command = dice.number(0, 59), dice.number(0, 23), f"/usr/local/bin/{name} --quiet"
        step, days = dice.one(5, 10, 15, 20), sorted(dice.some(range(7), 2))
        first, date = dice.number(5, 11), dice.number(1, 28)
        plan, words = dice.one(
            (f"{minute} {hour} * * *", f"every day at {hour:02}:{minute:02}"),
            (f"*/{step} * * * *", f"every {step} minutes, from minute 0 of each hour on"),
            (
                f"{minute} {hour} * * {days[0]},{days[1]}",
                f"at {hour:02}:{minute:02} on {_DAYS[days[0]]}s and {_DAYS[days[1]]}s",
            ),
            (f"{minute} {hour} {date} * *", f"at {hour:02}:{minute:02} on day {date} of each month"),
            (
                f"{minute} {first}-{first + 6} * * 1-5",
                f"at minute {minute} of every hour from {first:02} to {first + 6:02}, both included, Monday to Friday",
            ),
        )
        entries.append((command, plan))
        said.append(f"- `{command}` {words}")
    check: Check = {"kind": "cron", "name": "crontab.txt is right", "path": f"{HOME}/crontab.txt", "entries": entries}
    lines = "\n".join(said)
    crontab = "\n".join(f"{plan} {command}" for command, plan in entries)
    return Draft(
        f"Write {HOME}/crontab.txt, a user's crontab with one entry for each of these commands, with five fields of "
        f"time made of numbers, `*`, `-`, `,` and `/`, and then the command exactly as it is here:\n\n{lines}",
        [check],
        f"cat > crontab.txt <<'END'\n{crontab}\nEND\n",
    )
