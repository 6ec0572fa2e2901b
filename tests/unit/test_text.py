"""The compiled reader of text gives what Python's float and the careful reader give, bit by bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brainlm.errors import DataError
from brainlm.parcellate import plain_text, ready_files
from brainlm.parcellate.decimals import numbers_in
from brainlm.parcellate.plain_text import read_plain


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """The compiled reader from the first byte on."""
    monkeypatch.setattr(plain_text, "PAYS_FROM", 0)


@pytest.fixture
def careful(monkeypatch):
    """`load`, by the careful reader alone."""

    def load(path):
        with monkeypatch.context() as patch:
            patch.setattr(ready_files, "read_plain", lambda path: None)
            return ready_files.load(path)

    return load


def parsed(text: str, columns: int, mark: str = "\t"):
    return numbers_in(text.encode(), 0, mark, columns)


def same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(
        np.asarray(found, np.float64).view(np.int64),
        np.asarray(expected, np.float64).view(np.int64),
    )


finite = st.floats(allow_nan=False, allow_infinity=False)
digits = st.text("0123456789", min_size=1, max_size=22)
SPELLINGS = st.one_of(
    finite.map(repr),
    finite.map(lambda value: f"{value:.18e}"),
    finite.map(lambda value: f"{value:.16e}"),
    st.floats(-1e7, 1e7).map(lambda value: f"{value:.6f}"),
    st.floats(-1e7, 1e7, width=32).map(str),
    st.integers(-(10**22), 10**22).map(str),
    st.tuples(st.sampled_from(["", "-", "+"]), digits, digits, st.integers(-90, 70)).map(
        lambda parts: f"{parts[0]}{parts[1]}.{parts[2]}e{parts[3]}"
    ),
    st.tuples(digits, st.sampled_from([".", "", "e5", "E-07", "e+00012", "."])).map("".join),
    digits.map(lambda text: "." + text),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(SPELLINGS, min_size=1, max_size=12))
@example(["9007199254740993", "9007199254740992.5", "9007199254740995"])  # halfway: to even
@example(["3e-21", "7e-22", "7e-23", "123e-24", "4503599627370497.5", "9007199254740991e-22"])
@example(["1.7976931348623157e308", "5e-324", "2.2250738585072014e-308", "1e400", "-0", "0.0e-99"])
@example(["9999999999999999999", "99999999999999999999", "1e23", "8.5e22", "0.1", "1e-80", "1e60"])
def test_every_number_is_that_of_python(spellings: list[str]) -> None:
    values, unsure = parsed("\t".join(spellings) + "\n", len(spellings))
    found = values[0].copy()
    for cell, text in unsure:
        assert text == spellings[cell]
        found[cell] = float(text)
    same_bits(found, np.array([float(text) for text in spellings]))


def test_what_is_near_a_halfway_point_is_rounded_right() -> None:
    """Decimals of 19 digits as near as they come to the middle between two floats."""
    rng = np.random.default_rng(0)
    spellings = []
    for power in range(-75, 56):
        ten = Fraction(10) ** power
        for digits in rng.uniform(1e18, 9.9e18, 40):
            below = float(Fraction(digits) * ten)
            middle = (Fraction(below) + Fraction(np.nextafter(below, np.inf).item())) / 2
            spellings += [f"{round(middle / ten) + step}e{power}" for step in (-1, 0, 1)]
    for odd in range(2**53 + 1, 2**53 + 400, 2):  # exactly the middle: to the even one
        spellings += [str(odd), f"{odd}0e-1", f"{odd * 25}e-2", f"{odd * 5}e-1"]
    values, unsure = parsed("\t".join(spellings), len(spellings))
    doubted = dict(unsure)
    assert len(doubted) < 0.01 * len(spellings)
    sure = [cell for cell in range(len(spellings)) if cell not in doubted]
    same_bits(values[0][sure], np.array([float(spellings[cell]) for cell in sure]))


def test_plain_text_is_not_doubted() -> None:
    values = np.random.default_rng(1).normal(1000, 20, (9, 40))
    for form in ("%.18e", "%.6f", "%.9g"):
        text = "\n".join("\t".join(form % value for value in row) for row in values)
        found, unsure = parsed(text, 40)
        assert unsure == []
        same_bits(found, np.array([[float(c) for c in r.split("\t")] for r in text.split("\n")]))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(SPELLINGS, min_size=3, max_size=3), min_size=1, max_size=12),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.booleans(),
    st.integers(0, 30),
)
def test_the_last_lines_are_read_like_the_others(rows, end: str, last: bool, begin: int) -> None:
    text = end.join("\t".join(row) for row in rows) + (end if last else "")
    values, unsure = numbers_in(b"x" * begin + text.encode(), begin, "\t", 3)
    found = values.copy()
    for cell, word in unsure:
        assert word == rows[cell // 3][cell % 3]
        found.flat[cell] = float(word)
    same_bits(found, np.array([[float(word) for word in row] for row in rows]))


@pytest.mark.parametrize("size", [4096 - 9, 4096 - 1, 4096, 4096 + 1, 8192])
def test_a_file_that_fills_its_last_page(tmp_path, careful, size) -> None:
    """Behind its end no memory is mapped: to look there would end the process."""
    path = tmp_path / "a.dat"
    for end in ("\n", ""):
        text = ("1.25\t2.5\n" * (size // 9 + 1))[: size - 2 - len(end)]
        path.write_text(text.rpartition("\n")[0] + "\n")
        rest = size - path.stat().st_size - len(end)
        path.write_text(path.read_text() + "1\t" + "3" * (rest - 2) + end)
        assert path.stat().st_size == size
        same_bits(ready_files.load(path).values, careful(path).values)


ROWS = "1.5\t2\n-3\t4e2\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1\t2\n3\n", "too few"),
        ("1\t2\n3\t4\t5\n", "too many"),
        ("1\t2\n3\t4\t", "an empty one too many"),
        ("1\t2\r3\t4\r", "line ends of another age"),
        ("", "nothing"),
        ("\n\n", "nothing but lines"),
    ],
)
def test_what_is_no_table_is_left_alone(text, why) -> None:
    assert parsed(text, 2) is None, why


@pytest.mark.parametrize("mark", ["\t", ",", ";", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_marks_line_ends_and_blanks(mark, end) -> None:
    spaced = mark if mark == " " else f" {mark}  "
    for text in (ROWS, "\n" + ROWS, ROWS[:-1], ROWS.replace("\n", "\n\n"), ROWS + "\n"):
        text = text.replace("\t", spaced).replace("\n", end)
        values, unsure = parsed(text, 2, mark)
        assert unsure == [] and values.tolist() == [[1.5, 2.0], [-3.0, 400.0]], repr(text)
    if mark == " ":
        text = "  1.5   2  \n -3 4e2"
        assert parsed(text, 2, mark)[0].tolist() == [[1.5, 2.0], [-3.0, 400.0]]


# --- files -------------------------------------------------------------------------------


FILES = {
    "numbers": "1.5\t2\n-3\t4e2\n",
    "names": "a\tb\n1.5\t2\n-3\t4e2\n",
    "missing": "a\tb\tc\nn/a\t2\t\nNaN\t4e2\t7\nna\tnull\t1\n",
    "counted": ",a,b\n0,1.5,2\n1,2,3\n",
    "numbered": "0,1\n1.5,2\n2,3\n",
    "spaces": " 1.5  2\n 3 4\n",
    "bom": "\ufeffa,b\n1,2\n3,4\n",
    "windows": "a;b\r\n1;2\r\n3;4\r\n",
    "infinite": "a,b\ninf,2\n-Infinity,1e400\n",
    "long": "1.00000000000000000000000000000001,2\n3,4\n",
    "underscore": "1_000,2\n3,4\n",
    "quoted": '"a","b"\n"1","2"\n3,4\n',
    "rows named": "a,1,2,5\nb,3,4,6\n",
    "blank line": "1\t2\n\t\n3\t4\n",
    "old mac": "1\t2\r3\t4\r",
    "form feed": "1\t2\x0c3\t4\n5\t6\n",
    "one column": "1\n2\n3\n",
    "greek": "α,β\n1,2\n3,4\n",
}


@pytest.mark.parametrize("name", FILES)
def test_files_give_what_the_careful_reader_gives(tmp_path, careful, name) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(FILES[name].encode())
    expected, found = careful(path), ready_files.load(path)
    same_bits(found.values, expected.values)
    assert (found.columns, found.rows, found.notes) == (
        expected.columns,
        expected.rows,
        expected.notes,
    )


@pytest.mark.parametrize(
    "text",
    ["a,b\n", "a,b\n1,x\n", "1,2\n3\n", "", "\n \n", "1,2\n3,x\n", "1,2\n3\x0b,4\n", "1 2\n3 \n"],
)
def test_faults_are_told_by_the_careful_reader(tmp_path, careful, text) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    told = []
    for load in (careful, ready_files.load):
        with pytest.raises(DataError) as caught:
            load(path)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_most_tables_are_read_by_compiled_code(tmp_path) -> None:
    for name in ("numbers", "names", "missing", "counted", "spaces", "bom", "windows", "infinite"):
        path = tmp_path / f"{name}.dat"
        path.write_bytes(FILES[name].encode())
        assert read_plain(path) is not None, name


WORDS = [*"0123", "-2.5", "3e2", "n/a", "", "7 ", "a", "1_0", "5\x0b", "\x1c1", "é", '"6"']


@st.composite
def texts(draw) -> str:
    """Tables as they may be found: with names or none, marks and line ends of all kinds."""
    mark, end = draw(st.sampled_from("\t,; ")), draw(st.sampled_from(["\n", "\r\n", "\n\n", "\r"]))
    words = st.sampled_from(WORDS[: draw(st.sampled_from([4, 8, len(WORDS)]))])
    width = draw(st.integers(1, 3))
    rows = draw(st.lists(st.lists(words, min_size=width, max_size=width), min_size=1, max_size=4))
    head = draw(st.sampled_from(["", " ", "\ufeff", mark.join("abc"[:width]) + end]))
    return head + end.join(map(mark.join, rows)) + draw(st.sampled_from(["", end, " \n", mark]))


@settings(max_examples=500, deadline=None)
@given(texts())
def test_no_text_gives_something_else_than_the_careful_reader(tmp_path_factory, text) -> None:
    path = tmp_path_factory.mktemp("text") / "a.dat"
    path.write_bytes(text.encode())
    fast = read_plain(path) if text else None
    if fast is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ready_files, "read_plain", lambda path: None)
        try:
            expected = ready_files._text(path)
        except ValueError as error:
            with pytest.raises(ValueError, match="column"):
                ready_files._without_counters(fast.values, fast.head)
            assert "column" in str(error)
            return
    found = ready_files._without_counters(fast.values, fast.head)
    same_bits(found.values, expected.values)
    assert (found.columns, found.rows) == (expected.columns, expected.rows)


def test_few_bytes_are_not_worth_compiling(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.dat"
    path.write_text(ROWS)
    monkeypatch.setattr(plain_text, "PAYS_FROM", 3 * len(ROWS))
    monkeypatch.setattr(plain_text, "_bytes_read", 0)
    assert [read_plain(path) is None for _ in range(3)] == [True, True, False]
