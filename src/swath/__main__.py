"""``python -m swath`` is ``swath``: for launchers that start modules, such as torchrun."""

from swath.cli import main

main()
