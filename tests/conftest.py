"""Settings of all tests."""

import torch

torch.set_num_threads(1)  # many small products: threads cost more than they give
