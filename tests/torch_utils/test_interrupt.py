"""The first signal asks to stop, the second one stops."""

import os
import signal
import threading

import pytest

from torch_utils.interrupt import StopRequest

BOTH = pytest.mark.parametrize("number", StopRequest.SIGNALS, ids=lambda number: number.name)


@pytest.fixture(autouse=True)
def no_signal_is_ignored():
    """Under nohup SIGHUP is ignored, and `StopRequest` leaves it so."""
    before = {number: signal.getsignal(number) for number in StopRequest.SIGNALS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


@BOTH
def test_the_first_signal_only_asks(number):
    said = []
    with StopRequest(said.append) as stop:
        assert not stop.requested_anywhere()
        send(number)
        assert stop.requested_anywhere()
    assert len(said) == 1
    assert said[0].startswith(signal.Signals(number).name)


@BOTH
def test_the_second_one_stops(number, monkeypatch):
    monkeypatch.setattr(StopRequest, "ECHO", -1)
    said = []
    with StopRequest(said.append) as stop:
        send(number)
        with pytest.raises(KeyboardInterrupt):
            send(number)
        assert stop.requested_anywhere()
    assert len(said) == 1


def test_what_a_launcher_passes_on_is_the_same_request():
    said = []
    with StopRequest(said.append) as stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            send(number)
        assert stop.requested_anywhere()
    assert len(said) == 1


def test_afterwards_signals_act_as_before():
    before = [signal.getsignal(number) for number in StopRequest.SIGNALS]
    with StopRequest(print):
        assert [signal.getsignal(number) for number in StopRequest.SIGNALS] != before
    assert [signal.getsignal(number) for number in StopRequest.SIGNALS] == before
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_a_signal_in_the_middle_of_a_line_is_heard():
    def say(line):
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stdout>'>")

    with StopRequest(say) as stop:
        send(signal.SIGINT)
        assert stop.requested_anywhere()


def test_other_threads_leave_signals_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        with StopRequest(print) as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.requested_anywhere()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_under_nohup_a_closing_terminal_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest(print) as stop:
            send(signal.SIGHUP)
            assert not stop.requested_anywhere()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
