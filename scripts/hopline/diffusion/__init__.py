"""From trajectories to a diffusivity that may be quoted, and from diffusivities to an Arrhenius line."""
