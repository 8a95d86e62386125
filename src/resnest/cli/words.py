"""Help texts of several verbs."""

MODEL_HELP = "Name of published weights, run directory, checkpoint file, exported file, or hub id (user/name)."
NETWORK_HELP = "The network in a checkpoint file, if the file does not identify it."
DATA_HELP = "Folder, .zip, .npz, .csv, .tar or .parquet with images, 'hf:owner/name' of the hub, or 'digits'."
WINDOW_HELP = "Sliding windows of this side, for a segmenter: large pictures take less memory."
