"""The HTTP routes: each reads, calls the service, answers."""
