import pytest
import torch

from dnnlib import UserError
from semantic.browser import session as module
from semantic.browser.session import Photo, Sessions


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def photo(size):
    return Photo(bytes(size), None)


def test_keys_cannot_be_guessed_and_end_after_their_life(clock):
    sessions = Sessions(clock)
    first, second = sessions.create("faces"), sessions.create("faces")
    assert first.key != second.key
    assert len(first.key) >= 32
    clock.now = module.LIFE - 1
    assert sessions.get(first.key) is first
    clock.now = module.LIFE + 1
    assert sessions.get(first.key) is first
    for key in (second.key, "", None, first.key[:-1]):
        with pytest.raises(UserError, match="session has ended"):
            sessions.get(key)
    assert len(sessions) == 1


def test_the_longest_idle_session_gives_way_to_a_new_one(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_SESSIONS", 3)
    sessions = Sessions(clock)
    first, second, third = (sessions.create("faces") for _ in range(3))
    sessions.get(first.key)
    sessions.create("faces")
    assert len(sessions) == 3
    with pytest.raises(UserError):
        sessions.get(second.key)
    assert sessions.get(first.key)
    assert sessions.get(third.key)


def test_a_session_keeps_few_photos_and_all_sessions_together_few_bytes(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_LATENTS", 2)
    monkeypatch.setattr(module, "MAX_PHOTO_BYTES", 100)
    sessions = Sessions(clock)
    idle, busy = sessions.create("faces"), sessions.create("faces")
    names = [idle.keep(torch.zeros(1), photo(30)) for _ in range(3)]
    assert list(idle.latents) == names[1:] == list(idle.photos)
    busy.keep(torch.zeros(1), photo(90))
    sessions.get(busy.key)
    assert not idle.photos
    assert len(busy.photos) == 1
    assert list(idle.latents) == names[1:]  # codes are small and stay


def test_only_the_newest_sessions_keep_maps_of_their_pictures(clock, monkeypatch):
    monkeypatch.setattr(module, "MAX_PARTIAL", 2)
    sessions = Sessions(clock)
    made = [sessions.create("faces") for _ in range(4)]
    for session in made:
        session.partial = object()
    sessions.tidy()
    assert [session.partial is None for session in made] == [True, True, False, False]
