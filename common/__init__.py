"""What both daemons share: the model, the codec between model and wire, errors, configuration."""
