"""One file a kind of outlet."""
