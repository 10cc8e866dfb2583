"""Reading and rebuilding network files without running what is in them."""
