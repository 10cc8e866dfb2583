"""Pictures, sheets and videos of a network with regions."""
