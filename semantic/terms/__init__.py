"""Terms of the loss beside the paper's."""
