"""Batches of CHGNet against CHGNet's own forward pass, loss and two differentiations."""

import warnings

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from chgnet.trainer.trainer import CombinedLoss
from small import rocksalt_lif
from trainings import make_recipe

from hopline.console import InputError
from hopline.finetuning.chgnet_learner import loss_of
from hopline.potentials import chgnet
from hopline.potentials.chgnet_batch import (
    Properties,
    denormals_flushed,
    predict,
    refuse_other_layers,
)
from hopline.potentials.chgnet_graphs import collate

FLOAT32_RELATIVE = 1e-4
"""Sums of some thousand terms of alternating sign keep four of float32's seven digits; 2e-5 were measured."""
FLOAT64_RELATIVE = 1e-7
"""Upstream adds up the references in float32 even then."""


def chain():
    """Five atoms so far apart that no two bonds make an angle."""
    return Atoms("Li5", positions=[[4.5 * n, 0, 0.1 * n] for n in range(5)], cell=[22.5, 30, 30], pbc=True)


def mixed():
    """Crystals of several sizes and elements, a skewed cell, and one without angles."""
    salt = bulk("NaCl", "rocksalt", a=5.6).repeat((1, 1, 2))
    salt.rattle(0.1, seed=3)
    skewed = rocksalt_lif(seed=2)
    skewed.set_cell(skewed.cell.array @ [[1, 0.1, 0], [0, 1.05, 0.02], [0.03, 0, 0.97]], scale_atoms=True)
    return [rocksalt_lif(), salt, skewed, chain()]


def in_float64(model, frames):
    """Return the model and the graphs of frames in float64."""
    graphs = [chgnet.graph_of(model, atoms) for atoms in frames]
    for graph in graphs:
        for name in ("atom_frac_coord", "lattice", "neighbor_image"):
            setattr(graph, name, getattr(graph, name).detach().double())
        graph.lattice.requires_grad_()
    model.double()
    # upstream counts the elements in float32
    model.composition_model.float()
    return model, graphs


def stock(model, graphs):
    """Return CHGNet's own energies, forces and stresses, which can be differentiated."""
    for graph in graphs:
        graph.atom_frac_coord.requires_grad_()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
        return model(graphs, task="efs")


def gradient(model):
    return torch.cat(
        [weights.grad.flatten() for weights in model.parameters() if weights.grad is not None]
    ).clone()


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("version", chgnet.SHIPPED)
def test_predictions_are_upstreams(version):
    model = chgnet.load_shipped(version)
    graphs = [chgnet.graph_of(model, atoms) for atoms in mixed()]
    theirs = stock(model, graphs)
    with denormals_flushed():
        ours = predict(model, collate(graphs), to_be_trained=False)
    assert relative(ours.energies, theirs["e"].detach()) < 1e-6
    assert relative(ours.forces, torch.cat(theirs["f"]).detach()) < FLOAT32_RELATIVE
    assert relative(ours.stresses, torch.stack(theirs["s"]).detach()) < FLOAT32_RELATIVE
    assert not any(part.requires_grad for part in ours)


def test_a_batch_without_any_angle():
    model = chgnet.load_shipped("0.3.0")
    graphs = [chgnet.graph_of(model, chain())]
    assert len(graphs[0].bond_graph) == 0
    ours, theirs = predict(model, collate(graphs), to_be_trained=False), stock(model, graphs)
    assert float(ours.energies[0]) == pytest.approx(float(theirs["e"][0]), abs=1e-6)
    torch.testing.assert_close(ours.forces, theirs["f"][0].detach().double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("loss", ["mse", "huber"])
@pytest.mark.parametrize("unstressed", [(), (1, 3), (0, 1, 2, 3)], ids=["all", "some", "none"])
def test_loss_and_gradient_are_upstreams(loss, unstressed):
    """Stresses that a frame lacks are NaN, which upstream's loss leaves out of its mean too."""
    frames = mixed()
    model, graphs = in_float64(chgnet.load_shipped("0.3.0"), frames)
    generator = torch.Generator().manual_seed(5)
    labels = Properties(
        torch.randn(4, generator=generator, dtype=torch.float64) - 4.0,
        torch.randn(sum(map(len, frames)), 3, generator=generator, dtype=torch.float64),
        torch.randn(4, 3, 3, generator=generator, dtype=torch.float64),
    )
    labels.stresses[list(unstressed)] = torch.nan
    recipe = make_recipe("chgnet", "naive", loss=loss)
    criterion = CombinedLoss(
        target_str="efs", criterion={"mse": "MSE", "huber": "Huber"}[loss], energy_loss_ratio=recipe.energy_weight,
        force_loss_ratio=recipe.force_weight, stress_loss_ratio=recipe.stress_weight,
    )  # fmt: skip
    targets = {
        "e": labels.energies,
        "f": labels.forces.split([len(atoms) for atoms in frames]),
        "s": list(labels.stresses),
    }
    if len(unstressed) == len(frames):
        # the mean over no stress is NaN upstream: it cannot be trained so
        criterion = CombinedLoss(
            target_str="ef", criterion=criterion.criterion.__class__.__name__.removesuffix("Loss"),
            energy_loss_ratio=recipe.energy_weight, force_loss_ratio=recipe.force_weight,
        )  # fmt: skip
    theirs = criterion(targets, stock(model, graphs))["loss"]
    theirs.backward()
    expected = gradient(model)
    model.zero_grad()
    with denormals_flushed():
        ours = loss_of(predict(model, collate(graphs), to_be_trained=True), labels, recipe)
        ours.backward()
    assert float(ours) == pytest.approx(float(theirs), rel=FLOAT64_RELATIVE)
    assert relative(gradient(model), expected) < FLOAT64_RELATIVE


def test_the_order_of_a_batch_does_not_matter():
    model = chgnet.load_shipped("0.3.0")
    graphs = [chgnet.graph_of(model, atoms) for atoms in mixed()]
    forward = predict(model, collate(graphs), to_be_trained=False)
    backward = predict(model, collate(graphs[::-1]), to_be_trained=False)
    torch.testing.assert_close(forward.energies, backward.energies.flip(0), atol=1e-6, rtol=0)
    torch.testing.assert_close(forward.stresses, backward.stresses.flip(0), atol=1e-4, rtol=1e-5)


def test_flushing_ends_with_its_block():
    smallest = torch.full((1,), 1e-39)
    with denormals_flushed():
        assert float(smallest * 1.0) == 0.0
    assert float(smallest * 1.0) > 0.0


@pytest.mark.parametrize(
    ("argument", "value"), [("mlp_first", False), ("gMLP_norm", "batch"), ("bond_conv_hidden_dim", [64, 64])]
)
def test_layers_that_are_not_computed_are_refused(argument, value):
    model = chgnet.load_shipped("0.3.0")
    refuse_other_layers(model)
    model.model_args[argument] = value
    with pytest.raises(InputError, match=rf"not computed here \({argument}\)"):
        refuse_other_layers(model)
