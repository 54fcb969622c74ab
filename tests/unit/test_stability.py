"""When a file counts as settled: bookkeeping with a clock of our own."""

from hypothesis import given
from hypothesis import strategies as st

from daemon.stability import LONGEST_RETRY_S, RetryClock, StabilityTracker
from worker.files import Stamp

A, B = Stamp(1, 1, 1, 1), Stamp(2, 2, 2, 1)


def _settled(tracker: StabilityTracker, now_s: float) -> list[tuple[bytes, Stamp]]:
    return list(tracker.settled(now_s))


def test_a_file_settles_after_its_quiet_time_and_not_before() -> None:
    tracker = StabilityTracker(5)
    tracker.observe(b"a", A, 100)
    assert _settled(tracker, 104.999) == []
    assert _settled(tracker, 105) == [(b"a", A)]


def test_any_difference_starts_the_quiet_time_anew() -> None:
    for other in (Stamp(2, 1, 1, 1), Stamp(1, 2, 1, 1), Stamp(1, 1, 2, 1), Stamp(1, 1, 1, 2)):
        tracker = StabilityTracker(5)
        tracker.observe(b"a", A, 0)
        tracker.observe(b"a", other, 4)
        assert _settled(tracker, 8) == []
        assert _settled(tracker, 9) == [(b"a", other)]


def test_the_same_stamp_again_changes_nothing() -> None:
    tracker = StabilityTracker(5)
    for now_s in range(5):
        tracker.observe(b"a", A, now_s)
    assert _settled(tracker, 5) == [(b"a", A)]


def test_a_writer_starts_the_quiet_time_anew() -> None:
    tracker = StabilityTracker(5)
    tracker.observe(b"a", A, 0)
    tracker.restart(b"a", 5)
    tracker.restart(b"unknown", 5)
    assert _settled(tracker, 9) == []
    assert _settled(tracker, 10) == [(b"a", A)]
    assert len(tracker) == 1


def test_what_is_forgotten_takes_no_room() -> None:
    tracker = StabilityTracker(0.1)
    tracker.observe(b"a", A, 0)
    tracker.forget(b"a")
    tracker.forget(b"a")
    assert len(tracker) == 0 and _settled(tracker, 9) == []


def test_files_may_be_forgotten_and_restarted_while_they_are_gone_through() -> None:
    tracker = StabilityTracker(1)
    for number in range(100):
        tracker.observe(b"%d" % number, A, 0)
    for path, _ in tracker.settled(1):
        tracker.restart(path, 1) if path.endswith(b"7") else tracker.forget(path)
    assert len(tracker) == 10


@given(
    st.lists(st.tuples(st.floats(0, 10), st.sampled_from([A, B]), st.booleans()), min_size=1, max_size=30),
    st.floats(0.1, 20),
    st.floats(0, 40),
)
def test_settled_means_unchanged_for_the_whole_time(
    looks: list[tuple[float, Stamp, bool]], settle_s: float, wait_s: float
) -> None:
    tracker, now_s, since_s, last = StabilityTracker(settle_s), 0.0, 0.0, None
    for pause_s, stamp, writer in looks:
        now_s += pause_s
        tracker.observe(b"a", stamp, now_s)
        if stamp != last or writer:
            since_s, last = now_s, stamp
        if writer:
            tracker.restart(b"a", now_s)
    now_s += wait_s
    assert _settled(tracker, now_s) == ([(b"a", last)] if now_s - since_s >= settle_s else [])


def test_a_retry_clock_grows_and_begins_anew_after_a_success() -> None:
    clock = RetryClock[str]()
    clock.note(b"a", "first", 100)
    clock.note(b"b", "other", 110)
    assert clock.due(114.9) == []
    assert clock.due(115) == [(b"a", "first")]
    clock.note(b"a", "again", 115)
    assert clock.due(144.9) == [(b"b", "other")]
    assert dict(clock.due(145)) == {b"a": "again", b"b": "other"}
    for _ in range(5):
        clock.note(b"a", "again", 200)
    assert b"a" not in dict(clock.due(200 + LONGEST_RETRY_S - 0.1)) and b"a" in dict(clock.due(200 + LONGEST_RETRY_S))
    clock.forget(b"a")
    assert b"a" not in clock
    clock.note(b"a", "anew", 300)
    assert b"a" in dict(clock.due(315))
