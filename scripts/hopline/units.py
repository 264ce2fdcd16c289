"""Every physical constant and unit conversion that Hopline uses, each stated once.

Inside the library lengths are in A, energies in eV, forces in eV/A, stresses in eV/A^3 (ASE sign:
positive under tension), times in ps unless a name says fs, temperatures in K, diffusivities in cm^2/s.
The values are CODATA as ASE carries them.
"""

import ase.units as _ase

BOLTZMANN_EV_PER_K: float = _ase.kB
RYDBERG_EV: float = _ase.Ry
RYDBERG_PER_HARTREE: float = 2.0
BOHR_A: float = _ase.Bohr
ASE_TIME_PER_FS: float = _ase.fs
"""ASE's internal time units in one femtosecond."""
GPA_PER_EV_PER_A3: float = 1.0 / _ase.GPa
"""Multiply a stress in eV/A^3 by this to get GPa."""
KBAR_PER_EV_PER_A3: float = 10.0 / _ase.GPa
"""Multiply a stress in eV/A^3 by this to get kbar."""
CM2_PER_S_PER_A2_PER_PS: float = 1e-4
"""Multiply a diffusivity in A^2/ps by this to get cm^2/s."""
FS_PER_PS: float = 1000.0
MEV_PER_EV: float = 1000.0
