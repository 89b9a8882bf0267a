"""What a trained model does: sample text, score text; and its baselines."""
