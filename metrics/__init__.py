"""Metrics of generated images. They use networks and data sets through calls only."""
