"""A small MACE with two heads that answer differently, made without training."""

import numpy as np
import torch
from small import write_potential

from hopline.finetuning.task import Parent
from hopline.potentials.calculator import load_calculator

HEADS = ("pbe", "r2scan")
NUMBERS = (3, 9, 11, 17)


def two_heads(dtype="float64", *, pair_repulsion=True, cutoff_A=4.0):
    """Return a MACE of Li, F, Na and Cl with random weights, two heads and reference energies of each."""
    import mace  # noqa: F401  # before e3nn: it lets torch load e3nn's constants
    from e3nn import o3
    from mace import modules

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(7)
    interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    try:
        return modules.ScaleShiftMACE(
            r_max=cutoff_A, num_bessel=4, num_polynomial_cutoff=5, max_ell=2, interaction_cls=interaction,
            interaction_cls_first=interaction, num_interactions=2, num_elements=len(NUMBERS),
            hidden_irreps=o3.Irreps("4x0e + 4x1o"), MLP_irreps=o3.Irreps("4x0e"), gate=torch.nn.functional.silu,
            atomic_energies=np.array([[-1.0, -2.0, -3.0, -4.0], [-10.0, -20.0, -30.0, -40.0]]),
            avg_num_neighbors=20.0, atomic_numbers=list(NUMBERS), correlation=2, heads=list(HEADS),
            atomic_inter_scale=[1.0, 3.0], atomic_inter_shift=[0.0, 0.5], pair_repulsion=pair_repulsion,
        )  # fmt: skip
    finally:
        torch.set_default_dtype(before)


def head_as_parent(folder, dtype="float64", **changes):
    """Export the second head of a two-head model and return it as a parent."""
    from hopline.potentials import mace

    torch.save(two_heads(dtype, **changes), folder / "two.model")
    made = mace.export_weights("two", folder / "one.pt", source=folder / "two.model", head=HEADS[1])
    card = write_potential(folder, folder / "one.pt", family="mace", dtype=made[0], head=made[1])
    return Parent(folder / "one.pt", made[0], load_calculator(card))
