"""Numbers: divisors, averages, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def clamp(value: float, low: float, high: float) -> float:
    """The nearest number between `low` and `high`."""
    if low > high:
        raise ValueError("low is above high")
    return max(low, min(value, high))


def gcd(first: int, second: int) -> int:
    """The greatest common divisor."""
    first, second = abs(first), abs(second)
    while second:
        first, second = second, first % second
    return first


def lcm(first: int, second: int) -> int:
    """The least common multiple; 0 if one is 0."""
    if not first or not second:
        return 0
    return abs(first * second) // gcd(first, second)


def is_prime(number: int) -> bool:
    """Whether it has no divisor but 1 and itself."""
    if number < 2:
        return False
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 1
    return True


def factors(number: int) -> list[int]:
    """Its prime factors, the smallest first."""
    if number < 1:
        raise ValueError("only positive numbers have prime factors")
    found: list[int] = []
    divisor = 2
    while number > 1:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1
    return found


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    if not values:
        raise ValueError("there are no values")
    return sum(values) / len(values)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    if not values:
        raise ValueError("there are no values")
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of them lie, with linear interpolation."""
    if not values or not 0 <= percent <= 100:
        raise ValueError("no values, or no percentage")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def in_base(number: int, base: int) -> str:
    """A number written in a base from 2 to 36."""
    if not 2 <= base <= 36:
        raise ValueError("the base must be 2 to 36")
    if number == 0:
        return "0"
    sign, number = ("-", -number) if number < 0 else ("", number)
    digits: list[str] = []
    while number:
        number, digit = divmod(number, base)
        digits.append(_DIGITS[digit])
    return sign + "".join(reversed(digits))


def ordinal(number: int) -> str:
    """1 as 1st, 22 as 22nd."""
    if 10 <= abs(number) % 100 <= 20:
        return f"{number}th"
    return f"{number}" + {1: "st", 2: "nd", 3: "rd"}.get(abs(number) % 10, "th")


def digits_sum(number: int) -> int:
    """The sum of its decimal digits."""
    return sum(int(digit) for digit in str(abs(number)))


def luhn_valid(code: str) -> bool:
    """Whether a card number has the right check digit."""
    digits = [int(letter) for letter in code if letter.isdigit()]
    if len(digits) < 2:
        return False
    total = 0
    for index, digit in enumerate(reversed(digits)):
        if index % 2:
            digit *= 2
            if digit > 9:
                digit -= 9
        total += digit
    return total % 10 == 0
