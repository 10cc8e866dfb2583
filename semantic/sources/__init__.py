"""Readers of what users bring: images with masks in folders, zips, published layouts, and the procedural source."""
