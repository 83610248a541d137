"""Made-up values that look like what they stand for, and belong to nobody.

Addresses, numbers and domains are of ranges set aside for documentation and tests.
"""

from __future__ import annotations

from random import Random

_FIRST = (
    *("Alex", "Robin", "Sam", "Jamie", "Morgan", "Taylor", "Casey", "Jordan", "Avery", "Quinn"),
    *("Riley", "Rowan", "Sasha", "Kim", "Noa", "Charlie", "Dana", "Elliot", "Frankie", "Harper"),
)
_LAST = (
    *("Marsh", "Holt", "Finch", "Larkin", "Novak", "Brandt", "Okoye", "Silva", "Mercer", "Voss"),
    *("Hale", "Lindqvist", "Moreau", "Tanaka", "Castell", "Eriksen", "Farrow", "Ibarra", "Keller"),
)
_STREETS = ("Example", "Sample", "Maple", "Orchard", "Mill", "Station", "Church", "Bridge")
_HEX = "0123456789abcdef"


def surrogate(kind: str, rng: Random) -> str:
    """A made-up value of one of `detect.KINDS`, as drawn by `rng`."""
    first, last, number = rng.choice(_FIRST), rng.choice(_LAST), rng.randrange(10, 1000)
    tail = "".join(rng.choice(_HEX) for _ in range(24))
    drawn = {
        "SECRET": f"sk-example-{tail}",
        "CREDENTIALS": f"{first.lower()}:example-{tail[:8]}",
        "PASSWORD": f"example-{tail[:10]}",
        "EMAIL": f"{first.lower()}.{last.lower()}{number}@example.com",
        "IBAN": f"XX00 EXAM PLE0 {number:04d} {rng.randrange(10_000):04d}",
        "CARD": f"0000 0000 {number:04d} {rng.randrange(10_000):04d}",
        "WALLET": f"0x{tail}{tail[:16]}",
        "NATIONAL_ID": f"000-{number % 100:02d}-{rng.randrange(10_000):04d}",
        "MAC_ADDRESS": f"00:00:5e:00:53:{tail[:2]}",
        "IP_ADDRESS": f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{number % 254 + 1}",
        "PHONE": f"+1 {rng.randrange(201, 990)} 555 01{number % 100:02d}",
        "BIRTH_DATE": f"{rng.randrange(1950, 2005)}-0{number % 9 + 1}-{number % 28 + 1:02d}",
        "ADDRESS": f"{number} {rng.choice(_STREETS)} Street",
        "USERNAME": f"{first.lower()}{last.lower()[0]}{number}",
        "PERSON": f"{first} {last}",
    }
    return drawn[kind]
