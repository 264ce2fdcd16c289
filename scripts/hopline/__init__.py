"""Hopline's library: the science, free of paths, configs and command lines."""
