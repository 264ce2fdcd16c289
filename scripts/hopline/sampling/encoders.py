"""Structure encoders: one fixed-length vector a frame, by name."""

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hopline.console import InputError

Encoder = Callable[[Sequence[Atoms]], NDArray[np.float64]]


def _chgnet(frames: Sequence[Atoms]) -> NDArray[np.float64]:
    from hopline.potentials import chgnet

    return chgnet.encode(chgnet.load_shipped("0.3.0"), frames)


ENCODERS: dict[str, Encoder] = {"chgnet": _chgnet}


def encode(frames: Sequence[Atoms], encoder: str) -> NDArray[np.float64]:
    """Return the features of each frame, shape (n_frames, n_features).

    ``chgnet`` gives the 64 crystal features of CHGNet 0.3.0.
    """
    if encoder not in ENCODERS:
        raise InputError(f"encoder {encoder!r} is not known; there are {', '.join(ENCODERS)}")
    features = ENCODERS[encoder](frames)
    if not np.isfinite(features).all():
        row = int(np.argwhere(~np.isfinite(features))[0, 0])
        raise InputError(
            f"the encoder gave a feature that is not a finite number for frame {row} of the pool"
        )
    return features
