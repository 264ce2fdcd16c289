"""Training: references, replay and one module per trainable family."""
