"""Verified export: a file is run in its engine and compared with the network before it is written (promise P15).

    report = resnest.export("runs/a", format="onnx", out="model.onnx")

`exporting` joins the parts: a module per format, `gate` (comparison), `capture` (the graph and its layers), `writing`.
A task's `Exporter` defines the inputs and outputs of its files.
"""
