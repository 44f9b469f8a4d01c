"""`traceparent` of W3C Trace Context: what is read, and what is another trace."""

import pytest
from gen3c_client.contract import TraceParent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_what_is_written_is_read() -> None:
    for trace in (TraceParent(TRACE, SPAN), TraceParent(TRACE, SPAN, sampled=False), TraceParent.new()):
        assert TraceParent.parse(str(trace)) == trace
    assert str(TraceParent(TRACE, SPAN)) == f"00-{TRACE}-{SPAN}-01"
    assert TraceParent.new().trace_id != TraceParent.new().trace_id


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # other flags are for whoever knows them
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what the future will be like", True),
    ],
)
def test_flags_and_later_versions(text: str, sampled: bool) -> None:
    assert TraceParent.parse(text) == TraceParent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "text",
    [
        *(None, 7, "", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE}-{SPAN}-01-more"),
        *(f"ff-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01.more", f"00-{TRACE.upper()}-{SPAN}-01"),
        *(
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE[1:]}-{SPAN}-01",
            f" 00-{TRACE}-{SPAN}-01",
        ),
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_anything_else_is_none(text: object) -> None:
    assert TraceParent.parse(text) is None
