"""What Limbeck is compared with: the HTTP floor, and the same service on other frameworks."""
