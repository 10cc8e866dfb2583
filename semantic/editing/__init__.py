"""Edits of images through the codes and coordinates of their regions."""
