"""A stand-in for `debian:bookworm-slim`, made by debootstrap: the tests pull no image."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.image.podman import call, succeeds

STAND_IN = "localhost/gen3c-test/debian:bookworm-slim"
RELEASE = "bookworm"
# What Debian's slim images leave out, too.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")
CACHES = ("var/cache/apt", "var/lib/apt/lists", "var/log")


def stand_in() -> str:
    """The image's name; it is made once, in a minute or two."""
    if not succeeds("podman", "image", "exists", STAND_IN):
        with tempfile.TemporaryDirectory(prefix="gen3c-base-") as scratch:
            root = Path(scratch) / "root"
            call("debootstrap", "--variant=minbase", RELEASE, root, *_mirror(), timeout_s=900)
            for name in (*LEFT_OUT, *CACHES):
                for path in (root / name).iterdir():
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            archive = Path(scratch) / "root.tar"
            call("tar", "--directory", root, "--create", "--file", archive, ".")
            call("podman", "import", archive, STAND_IN)
    return STAND_IN


def _mirror() -> list[str]:
    """The mirror that this machine's apt takes the release from; none for debootstrap's default."""
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {RELEASE}"]
    listed = subprocess.run(targets, capture_output=True, text=True, check=False).stdout.split()
    return listed[:1]
