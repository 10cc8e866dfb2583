"""A run on disk: its folder, states, snapshots and progress."""
