"""One view of one chunk in, the running pool out."""

from gen3c_server.conditioner_model import ConditionerModel


class TritonPythonModel(ConditionerModel):
    """See gen3c_server.conditioner_model."""
