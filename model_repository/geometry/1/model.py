"""Frames in, depth and cameras out."""

from gen3c_server.geometry_model import GeometryModel


class TritonPythonModel(GeometryModel):
    """See gen3c_server.geometry_model."""
