"""What should run: where the configuration comes from, and where its upstreams are."""
