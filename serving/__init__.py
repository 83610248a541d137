"""The server: engines that decide, and the request path that forwards."""
