"""Readers of the user's data: images with masks in folders, zips, published layouts, and the procedural source."""
