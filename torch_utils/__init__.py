"""PyTorch helpers that know no GAN."""

import os

# On a CPU large tensors come in huge pages where the kernel offers them, so that a step meets hundreds of page faults
# instead of tens of thousands. PyTorch looks for this at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
