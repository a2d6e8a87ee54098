"""Serial counters: a fall with the time going on is a restart, all else is not."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cti_listener.counters import COUNTERS, EARLIER, Counters

BEGIN = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)


def stamp(second: float) -> str:
    return (BEGIN + timedelta(seconds=int(second))).strftime("%Y.%m.%d %H:%M:%S")


def heard(second: float) -> datetime:
    return BEGIN + timedelta(seconds=second)


class Stream:
    """Notes serials of one namespace, and says when a restart was seen."""

    def __init__(self) -> None:
        self.counters = Counters()

    def note(
        self,
        serial: int,
        second: float,
        *,
        ahead: float = 0,
        kind: str = "csta",
        ns: str = "a.cc",
    ) -> bool:
        time = stamp(second + ahead)
        return self.counters.note(ns, kind, serial, time, heard(second)) is not None

    def since(self, serial: int, second: float) -> datetime | None:
        return self.counters.note("a.cc", "csta", serial, stamp(second), heard(second))


def test_a_counter_that_falls_back_while_time_goes_on_restarted() -> None:
    stream = Stream()
    assert stream.since(4_237_833, 0) is None
    assert stream.since(4_237_834, 1) is None
    assert stream.since(421, 60) == heard(1)
    assert stream.since(422, 61) is None
    assert stream.since(423, 62) is None


def test_a_restart_is_told_each_time_and_once() -> None:
    stream = Stream()
    told = [stream.note(n % 50 + 1, n * 3) for n in range(200)]
    assert [n for n, one in enumerate(told) if one] == [50, 100, 150]


def test_holes_tell_nothing() -> None:
    stream = Stream()
    assert not any(stream.note(serial, n * 5) for n, serial in enumerate((5, 9, 1000, 10**9)))


def test_agent_and_csta_count_separately_and_so_does_each_namespace() -> None:
    stream = Stream()
    assert not stream.note(11_050_819, 0, kind="agent")
    assert not stream.note(121_019, 9, kind="csta")
    assert not stream.note(5, 20, ns="b.cc")
    assert stream.note(5, 40, kind="agent")


def test_a_late_serial_is_no_restart() -> None:
    stream = Stream()
    assert not stream.note(100, 10)
    assert not stream.note(99, 10)
    assert not stream.note(98, 9)
    assert not stream.note(90, 0)
    assert not stream.note(97, 11)  # within the margin of the server's whole seconds
    assert not stream.note(101, 12)


def test_a_second_is_no_more_than_the_margin_for_earlier_numbers_too() -> None:
    stream = Stream()
    for serial, second in ((101, 8), (102, 9), (103, 10), (100, 9)):
        assert not stream.note(serial, second)


NO_TIME = pytest.mark.parametrize("none", ["", "x", "0000.00.00 00:00:00"])


@NO_TIME
def test_two_the_wrong_way_round_are_no_restart_where_the_first_has_no_time(none: str) -> None:
    stream = Stream()
    assert stream.counters.note("a.cc", "csta", 101, none, heard(0)) is None
    assert not stream.note(100, 0)
    assert not stream.note(102, 1)
    assert stream.since(1, 60) == heard(1)


@NO_TIME
def test_where_no_time_is_known_a_restart_is_told_once_the_time_goes_on(none: str) -> None:
    stream = Stream()
    assert stream.counters.note("a.cc", "csta", 100, none, heard(0)) is None
    assert not stream.note(5, 10)
    assert not stream.note(6, 11)
    assert stream.since(7, 12) == heard(0)
    assert not stream.note(8, 20)


def test_a_time_that_cannot_be_read_is_no_restart() -> None:
    counters = Counters()
    assert counters.note("a.cc", "csta", 100, "x", heard(0)) is None
    assert counters.note("a.cc", "csta", 5, "y", heard(10)) is None


@pytest.mark.parametrize(
    "odd", ["2024.05.01 18:00:00", "2999.01.01 00:00:00", "unknown", "2024/05/01 12:00:02"]
)
@pytest.mark.parametrize("serial", [1002, 5])
def test_one_odd_time_hides_no_restart(odd: str, serial: int) -> None:
    stream = Stream()
    assert not stream.note(1000, 0)
    assert not stream.note(1001, 1)
    stream.counters.note("a.cc", "csta", serial, odd, heard(2))
    assert not stream.note(1003, 3)
    assert not stream.note(1004, 4)
    assert stream.note(1, 3600)
    assert not stream.note(2, 3601)


def test_a_clock_that_goes_ahead_for_long_hides_restarts_until_it_is_back() -> None:
    stream = Stream()
    for n in range(5):
        assert not stream.note(1000 + n, n + (7200 if n in {2, 3} else 0))
    assert not stream.note(1005, 5)
    assert stream.note(1, 3600)


@pytest.mark.parametrize("ahead", [45, 7200, 10**6])
@pytest.mark.parametrize("run", [2, 3, 20])
def test_odd_times_in_a_row_hide_no_restart(run: int, ahead: int) -> None:
    stream = Stream()
    for n in range(500):
        assert not stream.note(1000 + n, n, ahead=ahead if n >= 500 - run else 0)
    assert stream.since(1, 530) == heard(499)
    assert not stream.note(2, 531)


@pytest.mark.parametrize("odd", [(45,), (45, 45), (7200, 7200)])
def test_two_numbers_before_them_are_enough(odd: tuple[int, ...]) -> None:
    stream = Stream()
    for n, ahead in enumerate((0, 0, *odd)):
        assert not stream.note(1000 + n, n, ahead=ahead)
    assert stream.note(1, 20)


@pytest.mark.parametrize(("length", "ahead"), [(500, 100), (4000, 1500), (10, 4)])
def test_a_clock_that_a_restart_puts_right_hides_it_not(length: int, ahead: int) -> None:
    stream = Stream()
    for n in range(length):
        assert not stream.note(1000 + n, n, ahead=ahead)
    assert stream.since(1, length + 2) == heard(length - 1)
    assert not stream.note(2, length + 3)


def test_a_clock_that_was_ahead_for_most_of_a_line_hides_a_restart_for_a_while() -> None:
    stream = Stream()
    for n in range(60):
        assert not stream.note(1000 + n, n, ahead=100)
    told = [second for second in range(70, 300) if stream.note(second - 69, second)]
    assert len(told) == 1
    assert 100 < told[0] < 140


@pytest.mark.parametrize("run", [1, 2, 3, 5])
def test_odd_times_in_a_row_make_no_restart_of_what_is_late(run: int) -> None:
    for odd in ("2024.05.01 10:00:0{}", "unknown {}"):
        stream = Stream()
        for n in range(30):
            if 10 <= n < 10 + run:
                time = odd.format(n % 10)
                assert stream.counters.note("a.cc", "csta", 1000 + 2 * n, time, heard(n)) is None
            else:
                assert not stream.note(1000 + 2 * n, n)
        assert not stream.note(1015, 7)
        assert stream.since(1, 60) == heard(29)


def test_times_that_are_none_in_a_row_neither_hide_a_restart_nor_make_one() -> None:
    stream = Stream()
    for n in range(10):
        assert not stream.note(1000 + 2 * n, n)
    for n in range(10, 25):
        assert stream.counters.note("a.cc", "csta", 1000 + 2 * n, f"none {n}", heard(n)) is None
    assert not stream.note(1003, 1)
    assert stream.since(1, 60) == heard(24)


def test_one_earlier_number_says_nothing_since_its_time_may_be_odd() -> None:
    stream = Stream()
    assert not stream.note(1000, -7200)
    assert not stream.note(1001, 5)
    assert not stream.note(999, 4)
    assert not stream.note(1002, 6)
    assert not stream.note(998, 4)


def test_what_is_late_or_odd_or_comes_again_neither_hides_a_restart_nor_makes_one() -> None:
    for seed in range(150):
        chance = random.Random(seed)
        stream, now, told = Stream(), 0.0, []
        for first in (1001, 1, 1):
            sent: list[tuple[int, str]] = []
            length = chance.randrange(30, 150)
            begin = chance.randrange(length)
            odd = {*range(begin, begin + 4), *range(length - chance.randint(0, 4), length)}
            for n in range(length):
                said = first + n, stamp(now + (n in odd and chance.choice((30, 4000, 90_000))))
                if n not in odd:
                    sent.append(said)
                if sent and n and chance.random() < 0.1:
                    said = chance.choice(sent)  # came late, or again
                if stream.counters.note("a.cc", "csta", *said, heard(now)) is not None:
                    told.append(said[0])
                now += chance.choice((0.2, 1, 3))
            now += chance.choice((3, 30, 300))
        assert (seed, told) == (seed, [1, 1])


def test_an_odd_time_that_comes_again_tells_no_restart() -> None:
    stream = Stream()
    for serial, second in ((1000, 0), (1001, 7200), (1002, 2), (1001, 7200), (1003, 3)):
        assert not stream.note(serial, second)


@pytest.mark.parametrize("behind", [1, 59, 61, 300, 5000])
def test_what_comes_however_late_is_no_restart_and_hides_none(behind: int) -> None:
    stream = Stream()
    for n in range(6000):
        assert not stream.note(10_000 + n, n)
    assert not stream.note(15_999 - behind, 5999 - behind)
    assert stream.since(1, 6100) == heard(5999)
    for n in range(2, 6000):
        assert not stream.note(n, 6100 + n)
    assert not stream.note(5999 - behind, 12_099 - behind)
    assert stream.note(4, 12_200)
    assert not stream.note(5, 12_201)


def test_what_comes_late_behind_a_quiet_minute_is_no_restart() -> None:
    stream = Stream()
    for serial, second in ((10, 0), (12, 70), (13, 70), (11, 5), (9, 0), (14, 71)):
        assert not stream.note(serial, second)
    assert stream.note(1, 200)


def test_a_restart_is_told_from_when_the_last_event_was_on_its_way() -> None:
    stream = Stream()
    for n in range(10):
        assert not stream.note(1000 + n, n)
    late = heard(30)  # all at once, held up on the way
    assert stream.counters.note("a.cc", "csta", 1010, stamp(10), late) is None
    assert stream.counters.note("a.cc", "csta", 1, stamp(20), late) == heard(10)


def test_an_odd_time_puts_no_restart_far_back() -> None:
    stream = Stream()
    for n in range(10):
        assert not stream.note(1000 + n, n)
    assert not stream.note(1010, 7200)
    assert not stream.note(1011, -7200)
    assert not stream.note(1012, 12)
    assert stream.since(1, 60) == heard(12)


def test_a_clock_that_was_put_right_puts_a_restart_no_further_back_than_events_take() -> None:
    server, ours = Stream(), Stream()
    for n in range(5):
        assert not server.counters.note("a.cc", "csta", 100 + n, stamp(3600 + n), heard(n))
        assert not ours.counters.note("a.cc", "csta", 100 + n, stamp(n), heard(n - 10**9))
    for n in range(5, 10):
        assert not server.note(100 + n, n)
        assert not ours.note(100 + n, n)
    assert server.since(1, 60) == ours.since(1, 60) == heard(9 - 3600)


def test_an_event_may_have_been_on_its_way_for_as_long_as_a_broker_keeps_it() -> None:
    for longest, since in ((3600.0, 86_400 - 3600), (90_000.0, 9)):
        counters = Counters(longest)
        for n in range(10):
            assert counters.note("a.cc", "csta", 100 + n, stamp(n), heard(n)) is None
        assert counters.note("a.cc", "csta", 110, stamp(9), heard(86_400)) is None
        assert counters.note("a.cc", "csta", 1, stamp(60), heard(86_400)) == heard(since)


def test_what_comes_again_is_no_sign_that_the_counter_went_on() -> None:
    stream = Stream()
    for number, at in ((1000, 0), (1001, 1), (1001, 9)):
        assert stream.counters.note("a.cc", "csta", number, stamp(number - 1000), heard(at)) is None
    assert stream.counters.note("a.cc", "csta", 1, stamp(20), heard(20)) == heard(1)


def test_a_line_that_nobody_heard_for_an_hour_hides_no_restart() -> None:
    stream = Stream()
    assert not stream.note(10**6, 0)
    assert [stream.note(serial, 10 * n) for n, serial in enumerate((900, 1400), 1)] == [True, False]
    assert stream.note(350, 60)
    for hour in range(1, 70):
        assert not stream.note(10_000 * hour, 3600 * hour)
    assert stream.note(2000, 3600 * 71)


def test_times_need_not_be_written_alike() -> None:
    counters = Counters()
    times = ["2024.5.1 9:59:59", "2024.5.1 10:00:00", "2024-05-01 10:00:01", "2024-05-01 10:00:02"]
    for n, time in enumerate(times):
        assert counters.note("a.cc", "csta", 100 + n, time, heard(n)) is None
    assert counters.note("a.cc", "csta", 1, "2024-05-01 10:01:00", heard(60)) == heard(3)


def test_a_clock_set_back_and_one_late_event_are_no_restart() -> None:
    stream = Stream()
    for n in range(50):
        assert not stream.note(1000 + n, 200 + n)
    for serial, second in ((1051, 130), (1050, 129), (1052, 131), (1049, 129)):
        assert not stream.note(serial, second)
    assert stream.note(1, 160)


def test_a_repeat_from_before_a_restart_tells_no_second_one() -> None:
    stream = Stream()
    for n in range(10):
        assert not stream.note(4000 + n, n)
    assert stream.note(1, 60)
    for old in range(10):
        assert not stream.note(4000 + old, old)
    assert not any(stream.note(2 + n, 61 + n * 3) for n in range(20))


@pytest.mark.parametrize("late", [6, 80, 199])
def test_what_is_late_from_before_a_restart_tells_no_second_one(late: int) -> None:
    stream = Stream()
    for n in range(1, 201):
        assert n == late or not stream.note(n, n)
    assert stream.note(5, 300)
    assert stream.counters.note("a.cc", "csta", late, stamp(late), heard(300)) is None
    assert not any(stream.note(5 + n, 300 + n) for n in range(1, 250))
    assert stream.note(1, 600)


def test_a_late_serial_of_one_router_does_not_lift_the_line_of_another() -> None:
    stream = Stream()
    stream.note(5000, 0)
    assert stream.note(100, 5)  # a second line of numbers looks like a restart, once
    assert not stream.note(5010, 6)
    assert not stream.note(5005, 6)  # came late, and is nearer to the upper line
    assert not any(stream.note(101 + n, 9 + 3 * n) for n in range(10))
    assert not any(stream.note(5011 + n, 40 + 3 * n) for n in range(10))


def test_several_routers_may_each_count() -> None:
    chance = random.Random(4)
    stream = Stream()
    counts = [1_000_000, 5_000, 40]
    told = 0
    for second in range(0, 3000, 2):
        router = chance.randrange(3)
        counts[router] += chance.randint(1, 5)
        told += stream.note(counts[router], second)
    assert told <= 2


def test_reordering_and_repeats_never_look_like_a_restart() -> None:
    chance = random.Random(7)
    events = [(serial, serial / 4) for serial in range(2000)]
    arriving = sorted(
        ((at + chance.uniform(0, 1.5), serial, at) for serial, at in events for _ in range(2))
    )
    stream = Stream()
    assert not any(
        stream.counters.note("a.cc", "csta", serial, stamp(at), heard(now)) is not None
        for now, serial, at in arriving
    )


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), max_size=60))
def test_a_restart_is_told_only_of_a_serial_below_one_stamped_before(
    notes: list[tuple[int, int]],
) -> None:
    stream = Stream()
    before: list[tuple[int, int]] = []
    for serial, second in notes:
        if stream.note(serial, second):
            assert any(high > serial and at <= second - 2 for high, at in before)
        before.append((serial, second))


ODD = ["", "?", "0001.01.01 00:00:00", "9999.12.31 23:59:59", "2024-05-01T12:00:07+00:00"]


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from([*map(stamp, range(0, 400, 50)), *ODD])),
        max_size=40,
    )
)
def test_whatever_the_times_are_a_restart_began_before_it_was_heard(
    notes: list[tuple[int, str]],
) -> None:
    counters = Counters()
    for second, (serial, time) in enumerate(notes):
        since = counters.note("a.cc", "csta", serial, time, heard(second))
        assert since is None or since <= heard(second)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_any_rising_counter_is_quiet(steps: list[int]) -> None:
    stream = Stream()
    serial = 0
    for second, step in enumerate(steps):
        serial += step
        assert not stream.note(serial, second * 4)


def test_what_is_remembered_is_bounded() -> None:
    stream = Stream()
    for number in range(COUNTERS + 500):
        assert not stream.note(5, 0, ns=f"{number}.cc")
    assert not stream.note(4, 60, ns=f"{COUNTERS + 400}.cc")
    assert stream.note(4, 60, ns="1.cc")
    assert len(stream.counters._lines) == COUNTERS  # noqa: SLF001 - no other way to see it
    for fall in range(100):
        stream.note(1_000_000 - fall, 100 + fall * 3, ns="2.cc")
    lines = stream.counters._lines["2.cc", "csta"]  # noqa: SLF001 - as above
    assert len(lines) <= 8


@pytest.mark.parametrize("length", [10, 100, 5000, 8191])
def test_earlier_numbers_are_few_and_evenly_spread(length: int) -> None:
    stream = Stream()
    for n in range(length):
        assert not stream.note(n, n)
    (line,) = stream.counters._lines["a.cc", "csta"]  # noqa: SLF001 - as above
    assert len(line.earlier) < EARLIER
    kept = [0, *(number for number, _ in line.earlier), length]
    assert max(after - before for before, after in pairwise(kept)) <= max(2, length / 7)


def test_a_line_long_unheard_is_forgotten() -> None:
    stream = Stream()
    stream.note(1000, 0)
    assert stream.note(10, 3600)
    assert not stream.note(1000, 3601)  # now it is one of the new line's own numbers
    assert stream.note(11, 3700)
