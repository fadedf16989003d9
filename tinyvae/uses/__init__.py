"""What a trained model is good for: features for a classifier, more training data, and the like."""
