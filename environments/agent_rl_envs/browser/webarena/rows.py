"""Rows in WebArena's format, read without conversion: addresses are filled in, checks are looked over beforehand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent_rl.errors import UserError, not_found
from agent_rl.rows import Row

_KINDS = ("string_match", "url_match", "program_html")
_ANSWERS = ("exact_match", "must_include", "fuzzy_match")
_PLACE = re.compile(r"__([A-Z_]+?)__")


def fill_in(value: Any, sites: Mapping[str, str], row: Row) -> Any:
    """`value` with the addresses of sites for `__SITE__`, however deep. Raises `UserError` for one without address."""
    if isinstance(value, str):
        return _PLACE.sub(lambda found: _address(found[1].lower(), sites, row), value)
    if isinstance(value, list):
        return [fill_in(one, sites, row) for one in value]
    if isinstance(value, dict):
        return {name: fill_in(one, sites, row) for name, one in value.items()}
    return value


def _address(site: str, sites: Mapping[str, str], row: Row) -> str:
    if site not in sites:
        missing = not_found("site", site, sites)
        raise UserError(
            f"{row.where}: {missing} Give its address, such as webarena.sites.{site} http://localhost:7770."
        )
    return sites[site].rstrip("/")


def read_task(row: Row, sites: Mapping[str, str]) -> dict[str, Any] | None:
    """The data of a task; `None` for a row whose check runs a program of WebArena's own (`func:`), on its sites alone.

    Raises `UserError` for what is missing or wrong.
    """
    check: dict[str, Any] = row.json("eval", dict)
    if "func:" in repr(check.get("program_html")):
        return None
    _look_over(row, check)
    names = row.json("sites", list, [])
    return {
        "id": str(row.values.get("task_id", row.where)),
        "intent": row.field("intent", str),
        "url": fill_in(row.field("start_url", str), sites, row).split(" |AND| ")[0],
        "sites": [_address(name, sites, row) for name in names],
        "storage_state": row.field("storage_state", str, "") if row.field("require_login", bool, False) else "",
        "eval": fill_in(check, sites, row),
    }


def _look_over(row: Row, check: Mapping[str, Any]) -> None:
    kinds: Sequence[str] = check.get("eval_types") or ()
    if not kinds:
        raise row.bad("eval", f"eval_types is empty: it should name some of {', '.join(_KINDS)}")
    for kind in kinds:
        if kind not in _KINDS:
            raise row.bad("eval", f"there is no kind of check {kind!r}, only {', '.join(_KINDS)}")
    answers: Mapping[str, Any] = check.get("reference_answers") or {}
    if "string_match" in kinds and not answers:
        raise row.bad("eval", "string_match needs reference_answers")
    if unknown := [name for name in answers if name not in _ANSWERS]:
        raise row.bad("eval", f"there is no match {unknown[0]!r}, only {', '.join(_ANSWERS)}")
    if "url_match" in kinds:
        if not check.get("reference_url"):
            raise row.bad("eval", "url_match needs reference_url")
        if check.get("url_note", "GOLD in PRED") != "GOLD in PRED":
            raise row.bad("eval", f"url_note can only be 'GOLD in PRED', not {check['url_note']!r}")
    if "program_html" in kinds and not check.get("program_html"):
        raise row.bad("eval", "program_html is empty")
    for target in check.get("program_html") or ():
        if not {"url", "required_contents"} <= target.keys():
            raise row.bad("eval", "each of program_html needs url and required_contents")
        if not target["required_contents"].keys() & {"exact_match", "must_include"}:
            raise row.bad("eval", "required_contents is exact_match or must_include")
