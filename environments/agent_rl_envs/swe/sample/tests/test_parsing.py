"""Tests of `pantry.parsing`."""

import unittest

from pantry.parsing import (
    brackets_match,
    evaluate,
    fill,
    newer,
    parse_query,
    parse_settings,
    split_row,
    version_key,
)


class Rows(unittest.TestCase):
    def test_cells(self) -> None:
        self.assertEqual(split_row("a,b,,c"), ["a", "b", "", "c"])
        self.assertEqual(split_row("a;b", ";"), ["a", "b"])

    def test_quotes(self) -> None:
        self.assertEqual(split_row('"a,b",c'), ["a,b", "c"])
        self.assertEqual(split_row('"say ""hi""",x'), ['say "hi"', "x"])

    def test_open_quote(self) -> None:
        with self.assertRaises(ValueError):
            split_row('"a,b')


class Settings(unittest.TestCase):
    def test_reads(self) -> None:
        text = "# shop\nname = pantry\n\nrate=1=2 # or so\nname = store\n"
        self.assertEqual(parse_settings(text), {"name": "store", "rate": "1=2"})

    def test_no_setting(self) -> None:
        for text in ("name", "= 3"):
            with self.assertRaisesRegex(ValueError, "line 1"):
                parse_settings(text)


class Versions(unittest.TestCase):
    def test_numbers(self) -> None:
        self.assertTrue(newer("1.10", "1.9"))
        self.assertFalse(newer("1.2", "1.2.1"))

    def test_zeros(self) -> None:
        self.assertEqual(version_key("1.0.0"), version_key("1"))
        self.assertFalse(newer("1.0", "1"))

    def test_pre_releases(self) -> None:
        self.assertTrue(newer("2.0", "2.0-rc1"))
        self.assertTrue(newer("2.0-rc2", "2.0-rc1"))


class Templates(unittest.TestCase):
    def test_fills(self) -> None:
        self.assertEqual(fill("{count} x {name}", {"count": 2, "name": "tea"}), "2 x tea")

    def test_braces(self) -> None:
        self.assertEqual(fill("{{{name}}}", {"name": "tea"}), "{tea}")

    def test_unknown(self) -> None:
        with self.assertRaises(KeyError):
            fill("{price}", {})


class Query(unittest.TestCase):
    def test_reads(self) -> None:
        self.assertEqual(parse_query("?a=1&b=x+y&&a=3"), {"a": ["1", "3"], "b": ["x y"]})
        self.assertEqual(parse_query("flag"), {"flag": [""]})


class Sums(unittest.TestCase):
    def test_order(self) -> None:
        self.assertEqual([evaluate("2 + 3 * 4"), evaluate("(2 + 3) * 4"), evaluate("8 - 3 - 2")], [14, 20, 3])

    def test_division(self) -> None:
        self.assertEqual([evaluate("8 / 4 / 2"), evaluate("1.5 * 2")], [1, 3])

    def test_sign(self) -> None:
        self.assertEqual([evaluate("-3 + 5"), evaluate("2 * -(1 + 1)")], [2, -4])

    def test_no_sum(self) -> None:
        for text in ("2 +", "(1", "1)", "a + 1", "1 2"):
            with self.assertRaises(ValueError):
                evaluate(text)


class Brackets(unittest.TestCase):
    def test_match(self) -> None:
        self.assertTrue(brackets_match("f(a[1], {b})"))
        self.assertTrue(brackets_match(""))

    def test_do_not(self) -> None:
        for text in ("(", ")", "(]", "[(])"):
            self.assertFalse(brackets_match(text), text)
