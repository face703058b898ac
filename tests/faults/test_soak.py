"""One round of `make soak`."""

from soak import soak


def test_one_round_of_the_soak_ends_in_equal_weights():
    done = soak(0, epochs=2)
    assert done["rounds"] == 1 and done["photographs"] == 30
