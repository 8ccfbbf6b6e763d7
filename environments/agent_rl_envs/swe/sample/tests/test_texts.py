"""Tests of `pantry.texts`."""

import unittest

from pantry.texts import (
    camel_case,
    common_prefix,
    from_roman,
    is_palindrome,
    plural,
    roman,
    slug,
    snake_case,
    truncate,
    wrap,
)


class Slug(unittest.TestCase):
    def test_joins_words(self) -> None:
        self.assertEqual(slug("Fresh  Apples & Pears!"), "fresh-apples-pears")

    def test_other_separator(self) -> None:
        self.assertEqual(slug("Fresh Apples", "_"), "fresh_apples")

    def test_is_cut_after_a_word(self) -> None:
        self.assertEqual(slug("fresh green apples", longest=13), "fresh-green")
        self.assertEqual(slug("fresh green apples", longest=11), "fresh-green")

    def test_long_word_is_cut(self) -> None:
        self.assertEqual(slug("strawberries", longest=5), "straw")

    def test_nothing(self) -> None:
        self.assertEqual(slug("!!!"), "")


class Truncate(unittest.TestCase):
    def test_short_text_stays(self) -> None:
        self.assertEqual(truncate("apple", 5), "apple")

    def test_ends_with_dots(self) -> None:
        self.assertEqual(truncate("green apples", 9), "green...")

    def test_no_room(self) -> None:
        self.assertEqual(truncate("apple", 3), "...")
        self.assertEqual(truncate("apple", 2), "..")


class Plural(unittest.TestCase):
    def test_one(self) -> None:
        self.assertEqual(plural("apple", 1), "apple")

    def test_regular(self) -> None:
        self.assertEqual([plural("apple"), plural("box"), plural("dish", 0)], ["apples", "boxes", "dishes"])

    def test_y(self) -> None:
        self.assertEqual([plural("berry"), plural("day"), plural("y")], ["berries", "days", "ys"])

    def test_irregular(self) -> None:
        self.assertEqual(plural("child", 3), "children")


class Roman(unittest.TestCase):
    def test_writes(self) -> None:
        self.assertEqual([roman(4), roman(9), roman(1994), roman(2023)], ["IV", "IX", "MCMXCIV", "MMXXIII"])

    def test_limits(self) -> None:
        self.assertEqual(roman(3999), "MMMCMXCIX")
        for number in (0, 4000, -1):
            with self.assertRaises(ValueError):
                roman(number)

    def test_reads(self) -> None:
        self.assertEqual([from_roman("IV"), from_roman("MCMXCIV"), from_roman("XL")], [4, 1994, 40])

    def test_there_and_back(self) -> None:
        for number in (1, 3, 14, 49, 444, 3888):
            self.assertEqual(from_roman(roman(number)), number)


class Cases(unittest.TestCase):
    def test_snake(self) -> None:
        self.assertEqual(snake_case("unitPrice"), "unit_price")
        self.assertEqual(snake_case("HTTPCode2Name"), "http_code2_name")
        self.assertEqual(snake_case("net-weight"), "net_weight")

    def test_camel(self) -> None:
        self.assertEqual(camel_case("unit_price"), "unitPrice")
        self.assertEqual(camel_case("unit_price", first_upper=True), "UnitPrice")
        self.assertEqual(camel_case("__"), "")


class Wrap(unittest.TestCase):
    def test_lines(self) -> None:
        self.assertEqual(wrap("one two three four", 9), ["one two", "three", "four"])

    def test_exact_width(self) -> None:
        self.assertEqual(wrap("one two three", 7), ["one two", "three"])

    def test_long_word(self) -> None:
        self.assertEqual(wrap("a strawberry", 4), ["a", "strawberry"])

    def test_no_width(self) -> None:
        with self.assertRaises(ValueError):
            wrap("a", 0)


class Others(unittest.TestCase):
    def test_common_prefix(self) -> None:
        self.assertEqual(common_prefix("basket", "basin"), "bas")
        self.assertEqual(common_prefix("a", "abc"), "a")
        self.assertEqual(common_prefix("", "abc"), "")

    def test_palindromes(self) -> None:
        self.assertTrue(is_palindrome("A man, a plan, a canal: Panama"))
        self.assertFalse(is_palindrome("apple"))
