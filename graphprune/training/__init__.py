"""Training on a user's data: augmentation, metrics, losses, optimisers, recipes and the loop."""
