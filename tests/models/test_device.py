"""Who holds the device."""

import threading
import time

import pytest
import torch

from zarrloc.models import device


def test_one_thread_at_a_time_holds_the_device_and_may_let_it_go() -> None:
    said: list[str] = []
    has_it, wants_it = threading.Event(), threading.Event()

    def other() -> None:
        wants_it.wait(5)
        with device.held():
            said.append("other")
            torch.set_num_threads(torch.get_num_threads() + 1)
            has_it.set()

    thread = threading.Thread(target=other)
    thread.start()
    threads = torch.get_num_threads()
    with device.held() as hold:
        said.append("first")
        wants_it.set()
        assert not has_it.wait(0.1)
        with device.let_go():
            assert has_it.wait(5)
            time.sleep(0.05)
        said.append("first again")
        assert torch.get_num_threads() == threads  # the other's do not count here
    thread.join()
    assert said == ["first", "other", "first again"]
    assert 0.05 < hold.aside_s < 5


def test_letting_go_of_what_is_not_held_is_nothing() -> None:
    with device.let_go(), device.held() as hold:
        pass
    assert hold.aside_s == 0
    with pytest.raises(ValueError, match="within"), device.held(), device.let_go():
        raise ValueError("within")
    with device.held():  # it was given back all the same
        pass
