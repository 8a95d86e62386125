"""The two files of a saved model, as timm and the hub name them."""

CARD_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
