"""Text in columns to float64: compiled, correctly rounded, and with no opinion on anything unusual.

`numbers_in` reads rectangular tables of plain decimal numbers. It is for speed alone: whatever is
not plain (words, `n/a`, more than 19 digits, hexadecimal, underscores) it hands back as the text of
a cell, for Python to judge, and what is not rectangular it does not read at all.

A decimal w x 10^q (w an integer of at most 19 digits) is rounded after Lemire, "Number parsing at
a gigabyte per second", Software: Practice and Experience 51 (2021), 1700-1727: w times the leading
128 bits of 5^q gives the 53 bits of the result and tells when these are not enough to round by;
such cells are handed back as well.
"""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from .instructions import (
    bits_of,
    byte_at,
    compiled,
    eight_at,
    upper_half,
    zeros_before,
    zeros_behind,
)

#: Powers of ten in the table; others are handed back. Results are then far from the subnormal and
#: from the infinite.
_LEAST, _MOST = -80, 60
#: At most so many cells are handed back: the table is not one of plain numbers.
_MOST_DOUBTS = 1 << 16

U = np.uint64
_ZEROS, _SIXES, _HIGH, _THREES = (
    U(0x3030303030303030),
    U(0x0606060606060606),
    U(0xF0F0F0F0F0F0F0F0),
    U(0x3333333333333333),
)
_PAIRS, _TO_HIGH, _TO_LOW = U(0x000000FF000000FF), U(0x000F424000000064), U(0x0000271000000001)
_TENS = 10 ** np.arange(9, dtype=np.uint64)
_EXACT = np.array([float(10**power) for power in range(23)])  # without rounding
_LAST = U(1 << 56)  # seven digits are the most that are left
_NEWLINE, _RETURN, _SPACE, _PLUS, _MINUS, _POINT, _ZERO = 10, 13, 32, 43, 45, 46, 48
_NINE, _E, _MOST_DIGITS = 57, 101, 19
#: No exponent at all, where there should be one.
_NONE = 1 << 20
#: Bytes behind a number that may be looked at, for eight are read at a time.
_PADDING = 8


def _leading_bits(power: int) -> int:
    """The leading 128 bits of 5^power, from below; of a reciprocal, from above."""
    if power >= 0:
        value = 5**power
        shift = value.bit_length() - 128
        return value >> shift if shift > 0 else value << -shift
    divisor = 5**-power
    bits = 128 + divisor.bit_length() - 1
    return (1 << bits) // divisor + 1


def _table() -> NDArray[np.uint64]:
    """(powers, 2): upper and lower 64 bits."""
    wide = [_leading_bits(power) for power in range(_LEAST, _MOST + 1)]
    return np.array([(value >> 64, value & (2**64 - 1)) for value in wide], dtype=np.uint64)


_POWERS = _table()


@compiled
def _bits(w: np.uint64, q: int, powers: int) -> np.uint64:
    """The float64 nearest to w x 10^q as its bits; 0 if that cannot be told (w is not 0)."""
    if w < U(1 << 53) and -22 <= q <= 0:  # both are floats, and a quotient is rounded right
        return bits_of(np.float64(np.int64(w)) / _EXACT[U(-q)])
    zeros = zeros_before(w)
    shifted = w << U(zeros)
    row = powers + (q - _LEAST) * 16
    upper, lower = eight_at(row), eight_at(row + 8)
    high, low = upper_half(shifted, upper), shifted * upper
    if high & U(0x1FF) == U(0x1FF):
        more = upper_half(shifted, lower)
        low += more
        if low < more:
            high += U(1)
    if low == U(0xFFFFFFFFFFFFFFFF) and not -27 <= q <= 55:
        return U(0)
    top = high >> U(63)
    mantissa = high >> (top + U(9))
    exponent = ((217706 * q) >> 16) + 63 + 1023 - zeros + np.int64(top)
    if (
        low <= U(1)
        and -4 <= q <= 23
        and mantissa & U(3) == U(1)
        and mantissa << (top + U(9)) == high
    ):
        mantissa &= ~U(1)  # halfway between two: to the even one
    mantissa = (mantissa + (mantissa & U(1))) >> U(1)
    if mantissa >> U(53):
        mantissa >>= U(1)
        exponent += 1
    return (U(exponent) << U(52)) | (mantissa & U(0xFFFFFFFFFFFFF))


@compiled
def _digits(place: int, w: np.uint64, count: int) -> tuple[int, np.uint64, int]:
    """Take all digits that follow: new place, value (of 19 at most), count.

    Eight at a time, and the rest at once, however many there are: a branch for each digit would be
    guessed wrong by the processor at every other number.
    """
    eight = eight_at(place)
    while _others(eight) == U(0) and count < _MOST_DIGITS:
        w = w * _TENS[U(8)] + _value(eight - _ZEROS)
        count += 8
        place += 8
        eight = eight_at(place)
    taken = zeros_behind(_others(eight) | _LAST) >> 3
    # Those taken go to the upper end, zeros come below; in two steps, for none may be taken.
    digits = ((eight - _ZEROS) << U(56 - 8 * taken)) << U(8)
    return place + taken, w * _TENS[U(taken)] + _value(digits), count + taken


@compiled
def _others(eight: np.uint64) -> np.uint64:
    """Not 0 in the bytes, up to the first such one, that are no digits."""
    return ((eight & _HIGH) | (((eight + _SIXES) & _HIGH) >> U(4))) ^ _THREES


@compiled
def _value(eight: np.uint64) -> np.uint64:
    """The number of eight digits 0 to 9, the first of them in the lowest byte."""
    pairs = eight * U(10) + (eight >> U(8))
    return ((pairs & _PAIRS) * _TO_HIGH + ((pairs >> U(16)) & _PAIRS) * _TO_LOW) >> U(32)


@compiled
def _number(place: int, powers: int) -> tuple[int, np.uint64, bool]:
    """A number that begins at `place`: where it ends, its bits, and whether it is one for sure.

    The text ends in a byte that is part of no number, so nothing here looks for its end.
    """
    letter = byte_at(place)
    negative = letter == _MINUS
    if negative or letter == _PLUS:
        place += 1
        letter = byte_at(place)
    if byte_at(place + 1) == _POINT and _ZERO <= letter <= _NINE:  # as in 1.5e+02
        place, w, count = place + 1, U(letter - _ZERO), 1
    else:
        place, w, count = _digits(place, U(0), 0)
    power = 0
    if byte_at(place) == _POINT:
        before = count
        place, w, count = _digits(place + 1, w, count)
        power = before - count
    if count == 0 or count > _MOST_DIGITS:
        return place, U(0), False
    if byte_at(place) | 32 == _E:
        place, exponent = _exponent(place + 1)
        if exponent == _NONE:
            return place, U(0), False
        power += exponent
    sign = U(negative) << U(63)
    if w == U(0):
        return place, sign, True
    if power < _LEAST or power > _MOST:
        return place, U(0), False
    bits = _bits(w, power, powers)
    return place, bits | sign, bits != U(0)


@compiled
def _exponent(place: int) -> tuple[int, int]:
    """What stands behind an e: where it ends, and its value, of at most three digits."""
    letter = byte_at(place)
    if letter in (_MINUS, _PLUS):
        place += 1
    first = byte_at(place) - _ZERO
    if first < 0 or first > 9:
        return place, _NONE
    place, value = place + 1, first
    for _ in range(2):
        digit = byte_at(place) - _ZERO
        if digit < 0 or digit > 9:
            break
        place, value = place + 1, value * 10 + digit
    return place, (-value if letter == _MINUS else value)


@compiled
def _parse(
    place: int,
    end: int,
    mark: int,
    columns: int,
    bits: NDArray[np.uint64],
    doubts: NDArray[np.int64],
    powers: int,
) -> tuple[int, int]:
    """Fill `bits` row by row, and `doubts` with (cell, begin, end) of what is no plain number.

    `place` and `end` are addresses; at `end` stands a newline. Returns how many of each; -1 cells
    where the text is no table of `columns` columns.
    """
    start, cells, unsure = place, 0, 0
    while place < end:
        letter = byte_at(place)
        if letter == _NEWLINE or (letter == _RETURN and byte_at(place + 1) == _NEWLINE):
            place += 1
            continue
        for column in range(columns):
            while byte_at(place) == _SPACE:
                place += 1
            begin = place
            place, number, sure = _number(place, powers)
            if cells == len(bits):
                return -1, 0
            bits[cells] = number
            letter = byte_at(place)
            if sure and letter == mark and mark != _SPACE and column < columns - 1:
                place += 1  # the rule; below stand the exceptions
                cells += 1
                continue
            while letter == _SPACE and (mark != _SPACE or column == columns - 1):
                place += 1
                letter = byte_at(place)
            ended = letter in (mark, _NEWLINE, _RETURN)
            if not (sure and ended):
                while not ended:
                    place += 1
                    letter = byte_at(place)
                    ended = letter in (mark, _NEWLINE, _RETURN)
                if unsure == len(doubts):
                    return -1, 0
                doubts[unsure, 0] = cells
                doubts[unsure, 1] = begin - start
                doubts[unsure, 2] = place - start
                unsure += 1
            cells += 1
            if (letter == mark) == (column == columns - 1):
                return -1, 0  # another number of columns
            place += 1
        if letter == _RETURN:
            if byte_at(place) != _NEWLINE:
                return -1, 0  # a line end of another age
            place += 1
    return cells, unsure


def numbers_in(
    text: bytes | mmap.mmap, begin: int, mark: str, columns: int
) -> tuple[NDArray[np.float64], list[tuple[int, str]]] | None:
    """Values (rows, columns), and what stands in the cells that are not plainly numbers.

    Reads the text from `begin` on. The cells are given as (number of the cell, its text); their
    values mean nothing. None where the text is not a table of `columns` columns parted by `mark` (a
    space: by any number of spaces).
    """
    # The parser looks at eight letters at a time: the last lines are read where more may follow.
    cut = max(text.rfind(b"\n", begin, max(len(text) - _PADDING, begin)) + 1, begin)
    end = text[cut:] + b"\n" * _PADDING
    # A cell takes two letters at least; memory that is not written to is not taken.
    bits = np.empty((len(text) - begin) // 2 + 1, dtype=np.uint64)
    doubts = np.empty((_MOST_DOUBTS, 3), dtype=np.int64)
    told: list[tuple[int, str]] = []
    cells = 0
    for part, first, last in ((text, begin, cut), (end, 0, len(end) - _PADDING)):
        letters = np.frombuffer(part, dtype=np.uint8)
        address = letters.ctypes.data  # of `letters`, which lives until _parse returns, and so on
        more, unsure = _parse(
            address + first,
            address + last,
            ord(mark),
            columns,
            bits[cells:],
            doubts,
            _POWERS.ctypes.data,
        )
        if more < 0 or len(told) + unsure > _MOST_DOUBTS:
            return None
        told += [
            (cells + cell, part[first + start : first + stop].decode("latin-1").strip(" "))
            for cell, start, stop in doubts[:unsure].tolist()
        ]
        cells += more
    return (bits[:cells].view(np.float64).reshape(-1, columns), told) if cells else None
