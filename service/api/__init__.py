"""HTTP and websockets: what is read from a request, what is sent back."""
