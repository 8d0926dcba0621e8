"""Speed against what people would otherwise use: one file per bench, and what they share in `base`."""
