"""Tests of `pantry.numbers`."""

import unittest

from pantry.numbers import (
    clamp,
    digits_sum,
    factors,
    gcd,
    in_base,
    is_prime,
    lcm,
    luhn_valid,
    mean,
    median,
    ordinal,
    percentile,
)


class Divisors(unittest.TestCase):
    def test_gcd(self) -> None:
        self.assertEqual([gcd(12, 18), gcd(-4, 6), gcd(7, 0)], [6, 2, 7])

    def test_lcm(self) -> None:
        self.assertEqual([lcm(4, 6), lcm(-3, 5), lcm(0, 5), lcm(5, 0)], [12, 15, 0, 0])

    def test_primes(self) -> None:
        self.assertEqual([n for n in range(-2, 30) if is_prime(n)], [2, 3, 5, 7, 11, 13, 17, 19, 23, 29])

    def test_square_of_a_prime(self) -> None:
        self.assertFalse(is_prime(49))

    def test_factors(self) -> None:
        self.assertEqual(factors(360), [2, 2, 2, 3, 3, 5])
        self.assertEqual(factors(1), [])

    def test_factors_of_nothing(self) -> None:
        with self.assertRaises(ValueError):
            factors(0)


class Averages(unittest.TestCase):
    def test_mean(self) -> None:
        self.assertEqual(mean([1, 2, 6]), 3)

    def test_median(self) -> None:
        self.assertEqual([median([5, 1, 3]), median([4, 1, 3, 2]), median([7])], [3, 2.5, 7])

    def test_of_nothing(self) -> None:
        for function in (mean, median):
            with self.assertRaises(ValueError):
                function([])

    def test_percentile(self) -> None:
        values = [10.0, 30.0, 20.0, 40.0]
        self.assertEqual([percentile(values, p) for p in (0, 50, 100)], [10, 25, 40])
        self.assertAlmostEqual(percentile(values, 90), 37)

    def test_percentile_needs_a_percentage(self) -> None:
        for percent in (-1, 101):
            with self.assertRaises(ValueError):
                percentile([1.0], percent)


class Limits(unittest.TestCase):
    def test_clamp(self) -> None:
        self.assertEqual([clamp(5, 0, 3), clamp(-5, 0, 3), clamp(2, 0, 3)], [3, 0, 2])

    def test_clamp_needs_an_order(self) -> None:
        with self.assertRaises(ValueError):
            clamp(1, 3, 0)
        self.assertEqual(clamp(1, 2, 2), 2)


class Written(unittest.TestCase):
    def test_bases(self) -> None:
        self.assertEqual([in_base(10, 2), in_base(255, 16), in_base(35, 36)], ["1010", "ff", "z"])
        self.assertEqual([in_base(0, 2), in_base(-5, 2)], ["0", "-101"])

    def test_wrong_base(self) -> None:
        for base in (1, 37):
            with self.assertRaises(ValueError):
                in_base(1, base)

    def test_ordinals(self) -> None:
        self.assertEqual([ordinal(n) for n in (1, 2, 3, 4)], ["1st", "2nd", "3rd", "4th"])
        self.assertEqual(
            [ordinal(n) for n in (11, 12, 13, 20, 21, 112)], ["11th", "12th", "13th", "20th", "21st", "112th"]
        )

    def test_digits(self) -> None:
        self.assertEqual([digits_sum(129), digits_sum(-45)], [12, 9])


class Luhn(unittest.TestCase):
    def test_right(self) -> None:
        self.assertTrue(luhn_valid("4539 3195 0343 6467"))

    def test_wrong(self) -> None:
        self.assertFalse(luhn_valid("8273 1232 7352 0569"))

    def test_too_short(self) -> None:
        self.assertFalse(luhn_valid("0"))
        self.assertTrue(luhn_valid("00"))
