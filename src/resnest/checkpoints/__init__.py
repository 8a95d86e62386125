"""Published weights and checkpoint files: where they are, how they are read safely, what they call their tensors.

manifest, fetch: the published files          reading, pickled, mxnet_params: bytes to tensors, without running code
layouts, structure: names and shapes          loading, multipart, identify, convert: tensors into networks and files
"""
