"""One round of `make soak`."""

from soak import soak


def test_one_round_with_kills_ends_in_equal_weights():
    done = soak(0, epochs=4, wait=(1, 2))
    assert done["rounds"] == 1 and done["photographs"] == 30
    assert done["kills"] >= 1
