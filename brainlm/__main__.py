"""`python -m brainlm`."""

from .cli import main

main()
