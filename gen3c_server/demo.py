"""`make demo`: start the server, make one video from a clip, say where it is, stop the server."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from gen3c.samples import COURTYARD
from gen3c_server.canary import check
from gen3c_server.launch import Wishes, plan
from gen3c_server.launcher import EmbeddedServer, PreflightError, ServeOptions, ServerError
from gen3c_server.launcher.server import to_stderr


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code of `gen3c generate`, or 1 if the server cannot run."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("input", nargs="?", type=Path, help="a video or a picture folder; default: the sample clip")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder of the results")
    chosen = parser.parse_args(arguments)
    clip: Path = chosen.input or COURTYARD
    if not clip.exists():
        print(f"There is no {clip}; legal: INPUT=a video, a picture or a folder of them.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="gen3c-demo-") as scratch:
        try:
            planned = plan(Wishes(None, None, None, None, None, None, None), to_stderr)
            options = ServeOptions(
                planned.models,
                environment=planned.environment,
                triton_flags=planned.flags,
                log_path=Path(scratch) / "triton.log",
            )
            print("Starting the embedded Triton server ...", flush=True)
            with EmbeddedServer(options) as server:
                server.wait_ready(check)
                print(f"Ready at {server.grpc_url}. Making a video from {clip.name} ...", flush=True)
                return _generate(server.grpc_url, clip, chosen.output)
        except (PreflightError, ServerError) as error:
            print(f"The demo cannot run: {error}", file=sys.stderr)
            return 1


def _generate(url: str, clip: Path, output: Path) -> int:
    program = Path(sys.prefix) / "bin" / "gen3c"
    command = [str(program), "generate", str(clip), "--url", url]
    command += ["--select", "all", "--max-frames", "8", "--path", "left", "--save", "video,warps,points,cameras"]
    command += ["--output", str(output), "--force"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
