"""Training on a user's data: sources, augmentation, metrics, losses, optimisers, recipes and the loop."""
