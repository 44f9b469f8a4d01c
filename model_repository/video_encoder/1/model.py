"""The program `video_encoder` (gen3c/networks.py): an artifact of a built repository, else the network in PyTorch."""

from gen3c_server.leaf import LeafModel


class TritonPythonModel(LeafModel):
    """See gen3c_server.leaf."""
