"""What `rtp convert` writes: parameters as a rank holds them, read without any change."""
