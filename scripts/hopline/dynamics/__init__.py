"""Molecular dynamics: protocol, engine and the checks that tell when a run is wrong."""
