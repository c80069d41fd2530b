"""Training: the loop, the optimizer, the objectives and the models that train together."""
