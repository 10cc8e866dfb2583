"""From photos to codes: find the crop, label its regions, search the codes, tune the network."""
