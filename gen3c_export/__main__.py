"""`python -m gen3c_export`: the command line for programs that start it."""

from gen3c_export.cli import main

main()
