"""LayerSkip's formulas against values worked out by hand, for L = 5 blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from hcl_cli.lab.layerskip import (
    depth_scale,
    dropout_probability,
    exit_loss_weight,
    exit_weights,
    gradual,
    rotational,
    time_scale,
)


def test_dropout_grows_with_depth_and_time():
    # L = 5: D(l) = 2^(l/4) - 1, so 0, 0.1892, 0.4142 (sqrt 2 - 1), 0.6818, 1.
    assert [depth_scale(layer, 5) for layer in range(5)] == approx([0, 2**0.25 - 1, 2**0.5 - 1, 2**0.75 - 1, 1])
    # T = 3: S(t) = 2^(t/2) - 1.
    assert [time_scale(step, 3) for step in range(3)] == approx([0, 2**0.5 - 1, 1])
    # t = 1, l = 2, p_max 0.1: (sqrt 2 - 1)^2 / 10 = (3 - 2 sqrt 2) / 10.
    assert dropout_probability(1, 2, 3, 5, 0.1) == approx((3 - 2 * 2**0.5) / 10)
    assert dropout_probability(2, 4, 3, 5, 0.1) == approx(0.1)


def test_exit_loss_is_quadratic_in_depth_and_the_last_stands_out():
    # e_scale 0.2: 0.2 * (0, 1, 3, 6), and 4 + 0.2 * (0 + 1 + 2 + 3) = 5.2 for the last.
    assert [exit_loss_weight(layer, 5, 0.2) for layer in range(5)] == approx([0, 0.2, 0.6, 1.2, 5.2])


def test_torchtune_counts_otherwise():
    """torchtune's `sum_l` over all layers at scale 0.2 would be 0.2 * (1, 3, 6, 10) and 15: the paper's is not that."""
    torchtune = [0.2 * 1, 0.2 * 3, 0.2 * 6, 0.2 * 10, 15.0]
    ours = [exit_loss_weight(layer, 5, 0.2) for layer in range(5)]
    assert all(abs(a - b) > 0.1 for a, b in zip(ours, torchtune, strict=True))


def test_rotational_switches_every_rth_exit_on_and_moves_by_one():
    assert rotational(0, 6, 3) == [True, False, False, True, False, True]
    assert rotational(1, 6, 3) == [False, True, False, False, True, True]
    assert rotational(2, 6, 3) == [False, False, True, False, False, True]
    assert rotational(3, 6, 3) == rotational(0, 6, 3)


def test_gradual_starts_with_the_last_exit_and_has_all_at_half_time():
    # L = 4, T = 80: one more exit every 80 / 8 = 10 steps.
    assert gradual(0, 80, 4) == [False, False, False, True]
    assert gradual(9, 80, 4) == [False, False, False, True]
    assert gradual(10, 80, 4) == [False, False, True, True]
    assert gradual(20, 80, 4) == [False, True, True, True]
    assert gradual(30, 80, 4) == [True] * 4
    # torchtune would switch block 2 on at t/T >= 2/8, i.e. at step 20, not 10.


def test_weights_are_normalised_over_the_exits_that_are_on():
    # L = 5, e_scale 0.2, all on: (0, 0.2, 0.6, 1.2, 5.2) / 7.2.
    assert exit_weights(0, 10, 5, 0.2, "all") == approx([0, 0.2 / 7.2, 0.6 / 7.2, 1.2 / 7.2, 5.2 / 7.2])
    # Rotational, R = 3, step 1: blocks 1 and 4: (0.2, 5.2) / 5.4.
    assert exit_weights(1, 10, 5, 0.2, "rotational", 3) == approx([0, 0.2 / 5.4, 0, 0, 5.2 / 5.4])
    # Gradual at the start: the last alone.
    assert exit_weights(0, 10, 5, 0.2, "gradual") == approx([0, 0, 0, 0, 1])
    # Blocks below 3 frozen: (1.2, 5.2) / 6.4.
    assert exit_weights(0, 10, 5, 0.2, "all", first_layer=3) == approx([0, 0, 0, 1.2 / 6.4, 5.2 / 6.4])


@given(
    n_layers=st.integers(2, 40),
    n_steps=st.integers(2, 500),
    share=st.floats(0, 0.999),
    period=st.integers(1, 40),
    curriculum=st.sampled_from(["all", "rotational", "gradual"]),
    e_scale=st.floats(0, 2),
)
def test_weights_sum_to_one_and_dropout_stays_in_range(n_layers, n_steps, share, period, curriculum, e_scale):
    step = int(share * n_steps)
    weights = exit_weights(step, n_steps, n_layers, e_scale, curriculum, period)
    assert sum(weights) == approx(1)
    assert min(weights) >= 0 and weights[-1] == max(weights)
    chances = [dropout_probability(step, layer, n_steps, n_layers, 0.2) for layer in range(n_layers)]
    assert chances == sorted(chances) and chances[0] == 0 and chances[-1] <= 0.2 + 1e-12


def test_counts_out_of_range_are_refused():
    with pytest.raises(ValueError, match="block 5 of 5"):
        depth_scale(5, 5)
    with pytest.raises(ValueError, match="step 3 of 3"):
        time_scale(3, 3)
    with pytest.raises(ValueError, match="period 0"):
        rotational(0, 4, 0)
