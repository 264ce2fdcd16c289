"""What a run may be asked for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import rocksalt_lif

from hopline.console import InputError
from hopline.dynamics.stage import (
    Stage,
    default_frame_interval_fs,
    degrees_of_freedom,
    noise_seed,
    refuse_unlike,
)

NVT = {
    "ensemble": "nvt", "temperature_K": 300.0, "timestep_fs": 1.0, "duration_ps": 1.0, "frame_interval_fs": 10.0,
    "seed": 0, "friction_per_ps": 10.0,
}  # fmt: skip
NVE = NVT | {"ensemble": "nve", "friction_per_ps": 0.0}
NPT = NVT | {"ensemble": "npt", "barostat_time_fs": 100.0}


@pytest.mark.parametrize(
    ("settings_", "name"),
    [
        (NVT | {"ensemble": "nph"}, "nph"),
        (NVT | {"temperature_K": 0.0}, "temperature_K"),
        (NVT | {"temperature_K": float("nan")}, "temperature_K"),
        (NVT | {"timestep_fs": -1.0}, "timestep_fs"),
        (NVT | {"duration_ps": float("inf")}, "duration_ps"),
        (NVT | {"frame_interval_fs": float("nan")}, "frame_interval_fs"),
        (NVT | {"friction_per_ps": 0.0}, "friction_per_ps"),
        (NPT | {"barostat_time_fs": 0.0}, "barostat_time_fs"),
        (NVT | {"scale_first": 0.0}, "scale_first"),
        (NPT | {"scale_last": 1.1}, "only nvt can sweep"),
        (NVT | {"temperature_last_K": -1.0}, "temperature_last_K"),
        (NVE | {"temperature_last_K": 400.0}, "keeps its energy"),
        (NVT | {"thermostat": "berendsen"}, "langevin, nose-hoover"),
        (NVT | {"thermostat": "nose-hoover", "thermostat_time_fs": 0.0}, "thermostat_time_fs"),
        (NPT | {"thermostat": "nose-hoover"}, "npt has the langevin thermostat"),
        (NPT | {"barostat": "parrinello"}, "langevin-piston, stochastic-cell-rescaling"),
        (NPT | {"barostat_friction_per_ps": 0.0}, "barostat_friction_per_ps"),
        (NPT | {"pressure_GPa": 101325.0}, "is it in Pa or bar"),
        (NVE | {"timestep_fs": 0.001}, "0.001 fs: is it in ps"),
        (NVE | {"timestep_fs": 2.0, "frame_interval_fs": 3.0}, "no whole number .* take 2 or 4$"),
        (NVE | {"timestep_fs": 2.0, "frame_interval_fs": 1.0}, "no whole number .* take 2$"),
        (NVE | {"duration_ps": 0.001}, "less than a frame interval"),
        (NVE | {"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_settings_that_no_integrator_can_follow_are_refused(settings_, name):
    with pytest.raises(InputError, match=name):
        Stage(**settings_)


@settings(max_examples=60, deadline=None)
@given(timestep_fs=st.floats(0.1, 5), steps=st.integers(1, 50), duration_ps=st.floats(0.5, 50))
def test_a_run_has_whole_frame_intervals_and_the_length_asked_for(timestep_fs, steps, duration_ps):
    times = {"timestep_fs": timestep_fs, "frame_interval_fs": steps * timestep_fs, "duration_ps": duration_ps}
    stage = Stage(**{**NVT, **times})
    assert stage.steps_per_frame == steps
    assert stage.n_steps % steps == 0
    interval_fs = steps * timestep_fs
    assert abs(stage.n_steps * timestep_fs - 1000 * duration_ps) <= interval_fs / 2 + 1e-6


@settings(max_examples=60, deadline=None)
@given(timestep_fs=st.floats(0.02, 20), steps=st.floats(1, 500))
def test_without_a_frame_interval_any_run_has_one(timestep_fs, steps):
    duration_ps = steps * timestep_fs / 1000
    interval_fs = default_frame_interval_fs(timestep_fs, duration_ps)
    asked = NVE | {"timestep_fs": timestep_fs, "duration_ps": duration_ps, "frame_interval_fs": interval_fs}
    assert Stage(**asked).n_steps >= 1
    assert interval_fs <= max(timestep_fs, 10.0 + timestep_fs / 2)
    assert default_frame_interval_fs(0.5, 1.0) == 10.0


def test_a_stage_without_friction_is_nve_only():
    assert Stage(**NVE).n_steps == 1000


def test_a_ramp_goes_evenly_from_its_first_temperature_to_its_last():
    stage = Stage(**NVT, temperature_last_K=500.0)
    assert [stage.temperature_at(step) for step in (0, 250, 1000)] == [300.0, 350.0, 500.0]
    assert stage.changes_conditions
    assert Stage(**NVT).temperature_at(1000) == 300.0
    assert not Stage(**NVT, temperature_last_K=300.0).changes_conditions


def test_replicas_of_a_batch_share_all_but_temperature_and_seed():
    one = Stage(**NVT)
    refuse_unlike([one, Stage(**(NVT | {"temperature_K": 900.0, "seed": 7}))])
    for name, value in (("timestep_fs", 2.0), ("duration_ps", 2.0), ("friction_per_ps", 1.0)):
        with pytest.raises(InputError, match=f"share their {name}"):
            refuse_unlike([one, Stage(**(NVT | {name: value}))])


def test_the_centre_of_mass_has_degrees_of_freedom_where_noise_moves_it():
    atoms = rocksalt_lif()
    assert degrees_of_freedom(atoms, Stage(**NVE)) == 21
    assert degrees_of_freedom(atoms, Stage(**NVT)) == 24
    assert degrees_of_freedom(atoms, Stage(**NVT, thermostat="nose-hoover")) == 21
    assert degrees_of_freedom(atoms, Stage(**NPT)) == 24


def test_noise_has_another_seed_than_the_momenta():
    assert noise_seed(Stage(**NVT)) not in {0, 1, noise_seed(Stage(**(NVT | {"seed": 1})))}
