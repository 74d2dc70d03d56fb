"""`python -m app`: the server."""

from app.server import main

main()
