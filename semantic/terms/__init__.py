"""Terms of the loss that are not in the paper."""
