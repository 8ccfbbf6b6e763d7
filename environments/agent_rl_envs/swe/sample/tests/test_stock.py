"""Tests of `pantry.stock`."""

import unittest

from pantry.stock import OutOfStock, Stock, change, discount, price_text, split_evenly, total


class Shelf(unittest.TestCase):
    def setUp(self) -> None:
        self.stock = Stock()
        self.stock.add("tea", 10, cents=350)
        self.stock.add("salt", 3, cents=90)

    def test_add(self) -> None:
        self.assertEqual(self.stock.add("tea", 5).count, 15)
        self.assertEqual(self.stock.items["tea"].cents, 350)

    def test_new_price(self) -> None:
        self.assertEqual(self.stock.add("tea", 0, cents=400).cents, 400)

    def test_add_needs_sense(self) -> None:
        with self.assertRaises(ValueError):
            self.stock.add("tea", -1)
        with self.assertRaises(ValueError):
            self.stock.add("rice", 1)
        self.assertNotIn("rice", self.stock.items)

    def test_take(self) -> None:
        self.assertEqual(self.stock.take("tea", 4), 1400)
        self.assertEqual(self.stock.items["tea"].count, 6)

    def test_take_all(self) -> None:
        self.assertEqual(self.stock.take("salt", 3), 270)

    def test_take_too_much(self) -> None:
        with self.assertRaisesRegex(OutOfStock, "3 of salt"):
            self.stock.take("salt", 4)

    def test_unknown(self) -> None:
        with self.assertRaisesRegex(OutOfStock, "no rice"):
            self.stock.take("rice", 1)

    def test_reserved_is_not_free(self) -> None:
        self.stock.reserve("tea", 8)
        self.assertEqual(self.stock.items["tea"].free, 2)
        with self.assertRaises(OutOfStock):
            self.stock.take("tea", 3)
        with self.assertRaises(OutOfStock):
            self.stock.reserve("tea", 3)

    def test_reserve_all(self) -> None:
        self.stock.reserve("salt", 3)
        self.assertEqual(self.stock.items["salt"].free, 0)

    def test_take_reserved(self) -> None:
        self.stock.reserve("tea", 4)
        self.stock.take("tea", 3, reserved=True)
        self.assertEqual((self.stock.items["tea"].count, self.stock.items["tea"].reserved), (7, 1))
        with self.assertRaises(OutOfStock):
            self.stock.take("tea", 2, reserved=True)

    def test_release(self) -> None:
        self.stock.reserve("tea", 4)
        self.stock.release("tea", 3)
        self.assertEqual(self.stock.items["tea"].reserved, 1)
        self.stock.release("tea", 3)
        self.assertEqual(self.stock.items["tea"].reserved, 0)

    def test_low(self) -> None:
        self.assertEqual(self.stock.low(), ["salt"])
        self.assertEqual(self.stock.low(3), [])
        self.assertEqual(self.stock.low(11), ["salt", "tea"])

    def test_value(self) -> None:
        self.assertEqual(self.stock.value(), 3770)


class Money(unittest.TestCase):
    def test_discount(self) -> None:
        self.assertEqual([discount(1000, 10), discount(999, 50), discount(1000, 50, most=200)], [900, 500, 800])
        self.assertEqual([discount(1000, 0), discount(1000, 100)], [1000, 0])

    def test_no_discount(self) -> None:
        for percent in (-1, 101):
            with self.assertRaises(ValueError):
                discount(1000, percent)

    def test_split(self) -> None:
        self.assertEqual(split_evenly(1000, 3), [334, 333, 333])
        self.assertEqual(split_evenly(5, 1), [5])
        with self.assertRaises(ValueError):
            split_evenly(5, 0)

    def test_total(self) -> None:
        prices = {"tea": 350, "oil": 2500}
        self.assertEqual(total({"tea": 2}, prices), 1190)
        self.assertEqual(total({"oil": 2}, prices), 5000)
        self.assertEqual(total({"tea": 0, "oil": -1}, prices), 0)

    def test_change(self) -> None:
        self.assertEqual(change(386), {200: 1, 100: 1, 50: 1, 20: 1, 10: 1, 5: 1, 1: 1})
        with self.assertRaises(ValueError):
            change(3, (2,))

    def test_price(self) -> None:
        self.assertEqual([price_text(123456), price_text(-5), price_text(100, "$")], ["€1,234.56", "-€0.05", "$1.00"])
