"""PyTorch helpers that are independent of GANs."""

import os

# On a CPU, store large tensors in huge pages if the kernel offers them: a step then has hundreds of page faults instead
# of tens of thousands. PyTorch reads this variable at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
