"""The embedded cluster: an API server in process and a node whose pods are processes."""
