"""HTTP routes: each reads a request, calls the gateway, and writes the answer's wire form."""
