"""Universal and fine-tuned potentials: one card format, one loader, one module per family."""
