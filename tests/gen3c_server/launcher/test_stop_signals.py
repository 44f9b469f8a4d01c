"""What signals do before there is a server to stop."""

import os
import signal

import pytest

from gen3c_server.launcher.stop_signals import ending_by_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_before_the_start_ends_in_order(number: int) -> None:
    said: list[str] = []
    before = signal.getsignal(number)
    with pytest.raises(SystemExit, match="0"), ending_by_signal(said.append):
        os.kill(os.getpid(), number)
    assert said == ["Stopped before the server was started."]
    assert signal.getsignal(number) == before
