"""Engines that run exported files without torch: one module each; `choosing` selects one.

engine = open_engine("model.onnx")                 # resnest.runtime.engines.choosing
engine.name, engine(images)                        # "onnxruntime, 2 threads"; (N, 3, H, W) -> logits (N, K)
"""
