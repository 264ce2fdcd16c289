"""An encoder gives a structure's features: the same for the same crystal however it is written down."""

import numpy as np
import pytest
from small import rocksalt_lif

from hopline.console import InputError
from hopline.sampling import encoders


def test_features_do_not_depend_on_batch_origin_order_of_atoms_or_cell():
    atoms = rocksalt_lif(seed=1)
    moved, reordered, other = atoms.copy(), atoms[::-1], rocksalt_lif(seed=2)
    moved.translate([0.3, 1.7, -2.2])
    moved.wrap()
    features = encoders.encode([atoms, moved, reordered, atoms.repeat((2, 1, 1)), other], "chgnet")
    assert features.shape == (5, 64)
    np.testing.assert_allclose(features[1:4], features[[0, 0, 0]], atol=2e-5)
    assert np.abs(features[4] - features[0]).max() > 1e-3
    np.testing.assert_allclose(encoders.encode([other], "chgnet")[0], features[4], atol=2e-5)


def test_an_encoder_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="'m3gnet' is not known; there are chgnet"):
        encoders.encode([rocksalt_lif()], "m3gnet")


def test_features_that_are_no_numbers_are_refused(monkeypatch):
    monkeypatch.setitem(encoders.ENCODERS, "chgnet", lambda frames: np.full((len(frames), 3), np.nan))
    with pytest.raises(InputError, match="frame 0 of the pool"):
        encoders.encode([rocksalt_lif()], "chgnet")
