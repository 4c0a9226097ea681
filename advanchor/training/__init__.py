"""The mathematics that methods share, in plain PyTorch: one backbone, a delta, one training loop."""
