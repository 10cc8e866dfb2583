"""Ways to damage bytes and JSON: each takes a seeded `random.Random`, so that a case can be run again by its number."""

import struct
from collections.abc import Callable
from random import Random
from typing import Any

STRANGE_NUMBERS = (0, -1, 1, 2, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, -(2**63))
STRANGE_FLOATS = (0.0, -0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"))
STRANGE_TEXTS = (
    "", " ", "0", "-1", "background", "../../../escaped", "/escaped", "a\nb", "tab\there", "\x1b[31mred\x1b[0m", "\x00",
    "\ud800", "ü" * 300, "x" * 100_000, "%s%s%n", "{0}", "NaN", "true",
)  # fmt: skip


def truncate(data: bytes, random: Random) -> bytes:
    """Broken off: anywhere, near the end, near the start, or with nothing left."""
    places = [random.randrange(len(data)), max(len(data) - random.randint(1, 64), 0), random.randint(0, 64), 0]
    return data[: random.choices(places, (4, 3, 2, 1))[0]]


def flip_bits(data: bytes, random: Random) -> bytes:
    """One to eight bits changed."""
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        damaged[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def overwrite(data: bytes, random: Random) -> bytes:
    """A stretch replaced by zeros, ones or noise."""
    start = random.randrange(len(data))
    length = min(random.choice((1, 4, 64, 4096, 65536)), len(data) - start)
    filler = random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))
    return data[:start] + filler + data[start + length :]


def lie_about_numbers(data: bytes, random: Random) -> bytes:
    """One to four places hold another 16-, 32- or 64-bit number, as sizes and offsets do."""
    damaged = bytearray(data)
    for _ in range(random.randint(1, 4)):
        layout, size = random.choice((("<H", 2), ("<I", 4), ("<Q", 8), (">I", 4)))
        number = random.choice(STRANGE_NUMBERS) & (1 << 8 * size) - 1
        struct.pack_into(layout, damaged, random.randrange(max(len(data) - size, 1)), number)
    return bytes(damaged)


def move_parts(data: bytes, random: Random) -> bytes:
    """A stretch deleted, repeated or moved."""
    a, b, c = sorted(random.randrange(len(data) + 1) for _ in range(3))
    return random.choice((data[:a] + data[b:], data[:b] + data[a:], data[:a] + data[b:c] + data[a:b] + data[c:]))


def add_garbage(data: bytes, random: Random) -> bytes:
    """Something before, within or behind."""
    noise = random.choice((random.randbytes(random.randint(1, 4096)), bytes(4096), data[: random.randint(1, 4096)]))
    place = random.choice((0, len(data), random.randrange(len(data))))
    return data[:place] + noise + data[place:]


DAMAGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    truncate, flip_bits, flip_bits, overwrite, lie_about_numbers, move_parts, add_garbage,
)  # fmt: skip


def damage(data: bytes, random: Random) -> bytes:
    """`data` after one or two of `DAMAGES`."""
    for _ in range(random.choice((1, 1, 2))):
        data = random.choice(DAMAGES)(data, random) if data else data
    return data


def damage_tail(data: bytes, random: Random, size: int = 4096) -> bytes:
    """As `damage`, but within the last bytes, where zip files keep their directory."""
    return data[:-size] + damage(data[-size:], random)


def strange_value(random: Random) -> Any:
    """Something of a kind or size that nobody expects, which JSON can hold."""
    nested: Any = 0
    for _ in range(random.choice((3, 100))):
        nested = random.choice(([nested], {"regions": nested}))
    kinds = (
        None, True, random.choice(STRANGE_NUMBERS), random.choice(STRANGE_FLOATS), random.choice(STRANGE_TEXTS), [], {},
        [[]], [None], {"": None}, nested, [random.choice(STRANGE_NUMBERS)] * 3, [random.choice(STRANGE_TEXTS)] * 300,
    )  # fmt: skip
    return random.choice(kinds)


def damage_json(value: Any, random: Random) -> Any:
    """A copy in which one value somewhere is strange, missing, repeated or under another key."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        copy = dict(value)
        key = random.choice(list(copy))
        action = random.randrange(6)
        if action == 0:
            del copy[key]
        elif action == 1:
            copy[random.choice(STRANGE_TEXTS)] = copy.pop(key)
        else:
            copy[key] = damage_json(copy[key], random)
        return copy
    if isinstance(value, list) and value and random.random() < 0.85:
        copy = list(value)
        index = random.randrange(len(copy))
        action = random.randrange(6)
        if action == 0:
            del copy[index]
        elif action == 1:
            copy.insert(index, copy[index])
        else:
            copy[index] = damage_json(copy[index], random)
        return copy
    return strange_value(random)
