"""Settings of all tests."""

import signal

import torch

torch.set_num_threads(1)  # many small products: threads cost more than they give
# A shell without job control starts programs in the background with Ctrl-C ignored, and they hand that on.
signal.signal(signal.SIGINT, signal.default_int_handler)
