"""Adaptation of a trained pair to a domain that has images only."""

from semantic.adaptation.loss import AdaptationLoss

__all__ = ["AdaptationLoss"]
