"""Reads and rebuilds network files without running code from them."""
