"""OCI image layouts with models in them, and container images that carry a store."""
