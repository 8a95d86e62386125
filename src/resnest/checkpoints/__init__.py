"""Published weights and checkpoint files: download, safe reading, names of tensors in each layout.

manifest, fetch: the published files          reading, pickled, mxnet_params: bytes to tensors, without running code
layouts, structure: names and shapes          loading, multipart, identify, convert: tensors into networks and files
"""
