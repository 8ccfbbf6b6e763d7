"""Tests of `pantry.dates`."""

import unittest

from pantry.dates import (
    add_months,
    day_of_year,
    days_between,
    days_in_month,
    format_duration,
    is_leap,
    parse_clock,
    parse_duration,
    weekday,
)


class Calendar(unittest.TestCase):
    def test_leap_years(self) -> None:
        self.assertEqual([is_leap(y) for y in (2000, 1900, 2024, 2023)], [True, False, True, False])

    def test_months(self) -> None:
        self.assertEqual([days_in_month(2023, m) for m in (1, 2, 4, 12)], [31, 28, 30, 31])
        self.assertEqual(days_in_month(2024, 2), 29)

    def test_no_month(self) -> None:
        for month in (0, 13):
            with self.assertRaises(ValueError):
                days_in_month(2023, month)

    def test_day_of_year(self) -> None:
        self.assertEqual([day_of_year(2023, 1, 1), day_of_year(2023, 3, 1), day_of_year(2024, 3, 1)], [1, 60, 61])
        self.assertEqual(day_of_year(2023, 12, 31), 365)

    def test_no_day(self) -> None:
        for day in (0, 30):
            with self.assertRaises(ValueError):
                day_of_year(2023, 2, day)

    def test_between(self) -> None:
        self.assertEqual(days_between((2023, 12, 31), (2024, 1, 1)), 1)
        self.assertEqual(days_between((2024, 1, 1), (2023, 1, 1)), -365)
        self.assertEqual(days_between((2000, 1, 1), (2001, 1, 1)), 366)
        self.assertEqual(days_between((1900, 1, 1), (1901, 1, 1)), 365)

    def test_weekday(self) -> None:
        self.assertEqual(weekday(2024, 2, 29), "Thursday")
        self.assertEqual(weekday(1969, 7, 20), "Sunday")
        self.assertEqual(weekday(2000, 1, 1), "Saturday")

    def test_add_months(self) -> None:
        self.assertEqual(add_months((2024, 1, 31), 1), (2024, 2, 29))
        self.assertEqual(add_months((2023, 11, 15), 3), (2024, 2, 15))
        self.assertEqual(add_months((2023, 3, 31), -4), (2022, 11, 30))
        self.assertEqual(add_months((2023, 12, 1), 12), (2024, 12, 1))


class Durations(unittest.TestCase):
    def test_reads(self) -> None:
        self.assertEqual([parse_duration("1h 30m"), parse_duration("2d"), parse_duration("90 s")], [5400, 172800, 90])

    def test_no_duration(self) -> None:
        for text in ("", "1 week", "1h soon"):
            with self.assertRaises(ValueError):
                parse_duration(text)

    def test_writes(self) -> None:
        self.assertEqual(
            [format_duration(5400), format_duration(86461), format_duration(0)], ["1h 30m", "1d 1m 1s", "0s"]
        )
        self.assertEqual(format_duration(-60), "-1m")


class Clock(unittest.TestCase):
    def test_reads(self) -> None:
        self.assertEqual([parse_clock("21:30"), parse_clock("9:30 pm"), parse_clock("9:05 AM")], [1290, 1290, 545])

    def test_noon_and_midnight(self) -> None:
        self.assertEqual([parse_clock("12:00 am"), parse_clock("12:00 pm"), parse_clock("0:00")], [0, 720, 0])

    def test_no_time(self) -> None:
        for text in ("24:00", "12:60", "13:00 pm", "0:30 am", "noon"):
            with self.assertRaises(ValueError):
                parse_clock(text)
