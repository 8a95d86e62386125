"""Predicting without torch: decoding, preprocessing, results, drawing, the model card."""
