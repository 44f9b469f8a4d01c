"""Media and a spec in, a stream of events and artifacts out."""

from gen3c_server.job_model import JobModel


class TritonPythonModel(JobModel):
    """See gen3c_server.job_model."""
