"""Training: optimizers, schedules, metrics, and the loop that runs them."""
