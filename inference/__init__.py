"""Predictions of a range of models, heat maps, the pointing game, the zip for others."""
