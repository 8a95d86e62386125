"""Verified export: a file is run in its own engine and compared with the network before it is delivered (promise P15).

    report = resnest.export("runs/a", format="onnx", out="model.onnx")

`exporting` joins the parts: a module per format, `gate` (the comparison), `layers` (which layer differs), `target`.
What a task's files take and give is said by its `Exporter`.
"""
