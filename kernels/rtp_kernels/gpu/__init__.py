"""What the Triton forms of the operations share."""
