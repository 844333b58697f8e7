"""Networks: layers, losses, and the forward and backward passes through them."""
